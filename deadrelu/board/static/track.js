// Track: when units died, stacked by cause, and when they came back (downward). A click on a cause shows it alone.

import { fill, h, set, watcher } from "./dom.js";
import { CAUSES, causeWords, count, many, stretch } from "./format.js";
import { causeColour } from "./palette.js";
import { createPlot } from "./plot.js";
import { colour, isDark } from "./theme.js";

const UP = 96, DOWN = 28; // pixels above and below the line
const BAR = 7; // pixels

/** Return the step that a death is dated to. */
export function dateOf(death) {
  return death.killed_by_step ?? death.confirmed;
}

/** Return `{element, update}`. */
export function createTrack({ state, timeline, tip }) {
  let bars = [], tallest = 1, lowest = 0;
  const barAt = (x) => bars[Math.min(bars.length - 1, Math.max(0, Math.floor(x / BAR)))];
  const filter = (cause) => state.set({ cause: state.get().cause === cause ? null : cause });

  const plot = createPlot(timeline, tip, {
    label: "Deaths over steps, by cause. Left and right move along the steps.",
    describe: ({ x }) => describe(barAt(x)),
    pick: ({ x, y }) => {
      const cause = causeAt(barAt(x), (UP - y) / (UP / tallest));
      if (cause) filter(cause);
    },
  });
  plot.element.classList.add("track");
  const legend = h("div", { class: "causes", role: "group", "aria-label": "Show one cause alone" });
  const nothing = h("div", { class: "nothing" }, "No unit died.");
  plot.body.append(nothing);
  const element = h("section", { class: "panel", "aria-label": "Deaths" },
    h("header", { class: "panel-head" }, h("h2", {}, "Deaths"),
      h("p", {}, "When units died, and of what. Those that came back point down."), legend),
    plot.element);
  const changed = watcher();

  return {
    element,
    update({ document }) {
      const { cause } = state.get();
      const none = document.deaths.length === 0;
      nothing.classList.toggle("on", none);
      if (changed(document, cause, isDark())) fill(legend, ...chips(document, cause, filter));
      plot.draw(none ? 40 : UP + DOWN, (g, { width, scale }) => {
        bars = none ? [] : binned(document, cause, scale, width);
        tallest = Math.max(1, ...bars.map((bar) => bar.deaths));
        lowest = Math.max(0, ...bars.map((bar) => bar.back));
        if (!none) paint(g, bars, tallest, lowest, width);
      });
      const labels = none ? [] : [["0", UP], [count(tallest), 8], lowest ? [`${count(lowest)} back`, UP + DOWN - 6] : null];
      fill(plot.left, ...labels.filter(Boolean).map(([text, y]) => h("span", { class: "y-name", style: { top: `${y}px` } }, text)));
      const total = many(bars.reduce((sum, bar) => sum + bar.deaths, 0), "death");
      fill(plot.right, none ? null : h("span", { class: "row-value", style: { top: `${UP / 2 - 8}px` } }, total));
    },
  };
}

// With a cause chosen, the deaths of that cause alone.
function binned(document, cause, scale, width) {
  const bars = Array.from({ length: Math.max(1, Math.ceil(width / BAR)) }, (_, i) => ({
    from: scale.step(i * BAR), to: scale.step((i + 1) * BAR), deaths: 0, back: 0, causes: new Map(),
  }));
  const into = (step) => {
    const x = scale.x(step + 0.5);
    return x >= 0 && x < width ? bars[Math.floor(x / BAR)] : null;
  };
  for (const death of document.deaths) {
    if (cause !== null && death.cause !== cause) continue;
    const bar = into(dateOf(death));
    if (bar) {
      bar.deaths++;
      bar.causes.set(death.cause, (bar.causes.get(death.cause) ?? 0) + 1);
    }
    const back = death.revived === null ? null : into(death.revived);
    if (back) back.back++;
  }
  return bars;
}

/** Return the causes of a map in the order in which they are stacked, the unknown ones last. */
export function inOrder(causes) {
  const place = (cause) => (CAUSES.includes(cause) ? CAUSES.indexOf(cause) : CAUSES.length);
  return [...causes].sort(([a], [b]) => place(a) - place(b));
}

function paint(g, bars, tallest, lowest, width) {
  const dark = isDark();
  const line = colour("--line-strong");
  bars.forEach((bar, i) => {
    let y = UP;
    for (const [name, n] of inOrder(bar.causes)) {
      const tall = Math.max(1.5, (n / tallest) * (UP - 4));
      g.fillStyle = causeColour(name, dark);
      g.fillRect(i * BAR, y - tall, BAR - 1.5, tall - 0.5);
      y -= tall;
    }
    if (!bar.back) return;
    g.fillStyle = line;
    g.fillRect(i * BAR, UP + 2, BAR - 1.5, Math.max(2, (bar.back / Math.max(1, lowest)) * (DOWN - 6)));
  });
  g.fillStyle = line;
  g.fillRect(0, UP, width, 1);
}

function causeAt(bar, height) {
  let sum = 0;
  for (const [cause, n] of bar ? inOrder(bar.causes) : []) {
    sum += n;
    if (height >= 0 && height <= sum) return cause;
  }
  return null;
}

function describe(bar) {
  if (!bar || (!bar.deaths && !bar.back)) return null;
  const rows = inOrder(bar.causes).map(([cause, n]) => [causeWords(cause), count(n), causeColour(cause, isDark())]);
  if (bar.back) rows.push(["came back", count(bar.back)]);
  const [first, last] = [Math.ceil(bar.from - 0.5), Math.max(Math.ceil(bar.from - 0.5), Math.ceil(bar.to - 0.5) - 1)];
  return { title: `${many(bar.deaths, "death")}, ${stretch(first, last)}`, rows };
}

function chips(document, chosen, filter) {
  const causes = new Map(Object.entries(document.causes).filter(([, n]) => n > 0));
  return inOrder(causes).map(([cause, n]) => {
    const chip = h("button", { class: "chip", type: "button", on: { click: () => filter(cause) } },
      h("i", { class: "swatch", style: { background: causeColour(cause, isDark()) } }), `${causeWords(cause)} `, h("b", {}, count(n)));
    set(chip, "aria-pressed", cause === chosen ? "true" : "false");
    return chip;
  });
}
