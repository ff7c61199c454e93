// Curves: what the training did meanwhile - learning rate, loss, and how far the biases of each layer moved.

import { h, set, watcher } from "./dom.js";
import { elide, number, signed } from "./format.js";
import { createLines } from "./lines.js";
import { isDark } from "./theme.js";

const SPREAD = 50; // largest over smallest loss from which its axis is logarithmic

/** Return `{element, update}`. */
export function createCurves({ state, timeline, tip }) {
  const shared = { timeline, tip };
  const rate = createLines(shared, { title: "learning rate" });
  const loss = createLines(shared, { title: "loss" });
  const drift = createLines(shared, { title: "bias drift", hint: "mean per layer", write: signed });
  const element = h("section", { class: "panel", "aria-label": "Training" },
    h("header", { class: "panel-head" }, h("h2", {}, "Training"),
      h("p", {}, "What the training did meanwhile. Drag in any plot to zoom all of them; double-click to see everything.")),
    rate.element, loss.element, drift.element);
  const changed = watcher();

  return {
    element,
    update({ document }) {
      const chosen = state.get().site;
      if (!changed(document, chosen, isDark(), element.clientWidth, devicePixelRatio, ...timeline.domain)) return;
      const groups = Object.entries(document.rates);
      set(rate.element, "hidden", !groups.length);
      rate.update({ log: true, series: groups.map(([group, values], i) => ({
        name: groups.length > 1 ? `group ${group}` : "learning rate", tone: i ? "soft" : "strong", ...level(timeline.edges, values),
      })) });
      set(loss.element, "hidden", !document.loss);
      if (document.loss) loss.update(lossSeries(document.loss));
      const drifts = driftSeries(document, chosen);
      set(drift.element, "hidden", !drifts.length);
      drift.update({ zero: true, series: drifts });
    },
  };
}

// A rate is that of a whole window: it is drawn level from border to border. (A step is drawn in its middle.)
function level(edges, values) {
  return { steps: values.flatMap((_, i) => [edges[i] - 0.5, edges[i + 1] - 0.5]), values: values.flatMap((value) => [value, value]) };
}

function lossSeries({ tag, steps, values }) {
  const finite = values.filter((v) => v !== null && Number.isFinite(v));
  const [low, high] = finite.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  return { log: low > 0 && high / low > SPREAD, series: [{ name: tag, steps, values, tone: "strong" }] };
}

// The chosen layer last, so that it is drawn on top.
function driftSeries({ sites, steps }, chosen) {
  const moved = sites.filter((s) => s.bias_drift?.some((v) => v !== null));
  const names = elide(moved.map((s) => s.site), 14);
  return moved.map((s, i) => {
    const last = s.bias_drift.filter((v) => v !== null).at(-1);
    const strong = s.site === chosen;
    const label = strong || moved.length <= 6 ? `${names[i]} ${signed(last, 2)}` : "";
    return { name: s.site, steps, values: s.bias_drift, tone: strong ? "strong" : "soft", label };
  }).sort((a, b) => (a.tone === "strong") - (b.tone === "strong"));
}
