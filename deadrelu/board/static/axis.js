// Axis: the steps, written once, at the top of the screen while the page scrolls; and what is shown of them.

import { h, fill, set, setText, watcher } from "./dom.js";
import { count, stretch } from "./format.js";
import { createPlot } from "./plot.js";
import { roundTicks } from "./scale.js";

const HEIGHT = 30;
const TICK_ROOM = 110; // pixels for each label

/** Return `{element, update}`. */
export function createAxis({ timeline, tip }) {
  const reset = h("button", { class: "chip", type: "button", on: { click: () => timeline.zoom(null) } }, "Show all steps");
  const plot = createPlot(timeline, tip, {
    label: "Steps. Drag to zoom all plots; arrow keys move, plus and minus zoom, 0 shows everything.",
    describe: ({ step }) => ({ title: `Step ${count(Math.floor(step))}`, note: timeline.zoomed() ? "" : "Drag to zoom" }),
  });
  const ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  const caption = h("span", { class: "axis-name" }, "step");
  plot.body.append(ticks);
  plot.left.append(caption);
  plot.right.append(reset);
  plot.element.classList.add("axis");
  const changed = watcher();

  return {
    element: plot.element,
    update() {
      set(reset, "hidden", !timeline.zoomed());
      const [from, to] = timeline.domain;
      setText(caption, timeline.zoomed() ? stretch(from, to - 1) : "step");
      plot.draw(HEIGHT, (g, { width, scale }) => {
        if (!changed(from, to, width)) return;
        const whole = roundTicks(from, to, Math.max(2, Math.floor(width / TICK_ROOM)), true);
        fill(ticks, ...whole.filter((s) => s <= to).map((step) => label(step, scale.x(step), width)));
      });
    },
  };
}

function label(step, x, width) {
  const side = x < 24 ? " first" : x > width - 24 ? " last" : "";
  return h("span", { class: `tick${side}`, style: { left: `${x}px` } }, count(step));
}
