// Timeline: the one step axis that all plots share - what is shown of it, and the step that the reader points at.

import { borders, linear, windowAt } from "./scale.js";

/** Return a timeline. `chosen(range)` is called with [from, to], or null for everything, when the reader zooms. */
export function createTimeline(chosen) {
  const plots = new Set();
  const timeline = {
    steps: [],
    edges: borders([]),
    extent: [0, 1],
    domain: [0, 1],
    cursor: null,
    mark: null,

    /** Take over the recorded windows of a run, and the range that is to be shown of them (null: everything). */
    use(steps, range) {
      timeline.steps = steps;
      timeline.edges = borders(steps);
      timeline.extent = steps.length ? [timeline.edges[0], timeline.edges[steps.length]] : [0, 1];
      timeline.domain = (range && clip(range, timeline.extent)) || timeline.extent;
    },

    scale: (width) => linear(timeline.domain, width),
    windowAt: (step) => windowAt(timeline.edges, step),
    zoomed: () => timeline.domain[0] !== timeline.extent[0] || timeline.domain[1] !== timeline.extent[1],
    add: (plot) => plots.add(plot),

    /** Show a line at a step in all plots; null hides it. */
    point(step) {
      timeline.cursor = step === null ? null : Math.min(Math.max(step, timeline.domain[0]), timeline.domain[1]);
      for (const plot of plots) plot.overlay();
    },

    /** Shade a stretch of steps in all plots; null takes it away. */
    shade(range) {
      timeline.mark = range;
      for (const plot of plots) plot.overlay();
    },

    /** Show [from, to] in all plots, or everything. */
    zoom(range) {
      const clipped = range && clip(range, timeline.extent);
      chosen(clipped && (clipped[0] > timeline.extent[0] || clipped[1] < timeline.extent[1]) ? clipped : null);
    },

    /** Zoom by a factor around the cursor, or around the middle. */
    zoomBy(factor) {
      const [from, to] = timeline.domain;
      const centre = timeline.cursor ?? (from + to) / 2;
      timeline.zoom([centre - (centre - from) * factor, centre + (to - centre) * factor]);
    },

    /** Move what is shown by a part of its length, without leaving what there is. */
    pan(part) {
      const [from, to] = timeline.domain;
      const [first, last] = timeline.extent;
      const by = Math.min(Math.max((to - from) * part, first - from), last - to);
      timeline.zoom([from + by, to + by]);
    },

    /** Move the cursor by a number of recorded windows. */
    walk(by) {
      if (!timeline.steps.length) return;
      const at = timeline.cursor === null ? (by > 0 ? -1 : timeline.steps.length) : timeline.windowAt(timeline.cursor);
      const to = Math.min(Math.max(at + by, 0), timeline.steps.length - 1);
      timeline.point((timeline.edges[to] + timeline.edges[to + 1]) / 2);
    },
  };
  return timeline;
}

// A range that shows less than two steps, or lies outside, is no range.
function clip([from, to], [first, last]) {
  const found = [Math.max(first, Math.floor(from)), Math.min(last, Math.ceil(to))];
  return found[1] - found[0] >= 2 ? found : null;
}
