// Lines: series over steps on the shared axis, with few words beside them: the scale on the left, the end on the right.

import { fill, h, setText } from "./dom.js";
import { count, number } from "./format.js";
import { createPlot } from "./plot.js";
import { vertical } from "./scale.js";
import { colour } from "./theme.js";

const LABEL_HEIGHT = 14;

/**
 * Return `{element, update}` of one small chart. `update({series, log, zero, dead})`: series are
 * `{name, steps, values, tone, label}`, tone "soft", "strong" or a colour; `dead` are [from, to] stretches to blacken.
 */
export function createLines({ timeline, tip }, { title, hint = "", height = 76, write = number }) {
  let drawn = { series: [] };
  const plot = createPlot(timeline, tip, {
    label: `${title} over steps. Left and right move along the steps.`,
    describe: ({ step }) => describe(drawn, title, step, write),
  });
  plot.element.classList.add("lines");
  const kind = h("span", {});
  const heading = h("div", { class: "lines-title" }, h("b", {}, title), kind);
  const element = h("div", { class: "lines-row" }, plot.element);

  function update(next) {
    drawn = next;
    setText(kind, next.log ? "log" : hint);
    const points = drawn.series.map((s) => visible(s, timeline));
    const all = points.flatMap((p) => p.map(([, value]) => value));
    const scale = vertical(all, height, { log: drawn.log, zero: drawn.zero });
    plot.draw(height, (g, frame) => {
      g.fillStyle = colour("--line");
      g.fillRect(0, height - 1, frame.width, 1);
      for (const [from, to] of drawn.dead ?? []) blacken(g, frame, from, to, height);
      if (!scale) return;
      if (drawn.zero && scale.low < 0) g.fillRect(0, Math.round(scale.y(0)), frame.width, 1);
      drawn.series.forEach((s, i) => stroke(g, frame, scale, points[i], s.tone));
    });
    const limits = scale && !scale.flat ? [[write(scale.high), 8], [write(scale.low), height - 7]] : [];
    fill(plot.left, heading, ...limits.map(([text, y]) => h("span", { class: "y-name", style: { top: `${y}px` } }, text)));
    fill(plot.right, ...endLabels(drawn.series, points, scale, height, write));
  }

  return { element, update };
}

// The points within what is shown, and one more on either side, so that lines run to the edge.
function visible({ steps, values }, timeline) {
  const [from, to] = timeline.domain;
  const points = [];
  for (let i = 0; i < steps.length; i++) {
    if ((steps[i + 1] ?? steps[i]) < from || (steps[i - 1] ?? steps[i]) > to) continue;
    points.push([steps[i], values[i]]);
  }
  return points;
}

function toneOf(tone) {
  return tone === "soft" ? colour("--ink-4") : tone === "strong" ? colour("--accent") : tone;
}

function stroke(g, { width, scale }, y, points, tone) {
  g.strokeStyle = toneOf(tone);
  g.lineWidth = tone === "soft" ? 1 : 1.75;
  g.lineJoin = "round";
  g.beginPath();
  let pen = false, alone = null;
  for (const [step, value] of points) {
    const drawable = value !== null && Number.isFinite(value) && (!y.log || value > 0);
    if (!drawable) {
      if (alone) dot(g, alone);
      [pen, alone] = [false, null];
      continue;
    }
    const [px, py] = [scale.x(step + 0.5), y.y(value)];
    if (pen) g.lineTo(px, py);
    else g.moveTo(px, py);
    alone = pen ? null : [px, py];
    pen = true;
  }
  g.stroke();
  if (alone && alone[0] <= width) dot(g, alone);
}

// A value with none before or after it has no line: it is a dot.
function dot(g, [x, y]) {
  g.moveTo(x + 1.5, y);
  g.arc(x, y, 1.5, 0, 2 * Math.PI);
  g.stroke();
}

function blacken(g, { width, scale }, from, to, height) {
  const [left, right] = [Math.max(0, scale.x(from)), Math.min(width, scale.x(to))];
  if (right <= left) return;
  g.save();
  g.fillStyle = colour("--dead");
  g.fillRect(left, height - 5, right - left, 5);
  g.strokeStyle = colour("--dead-edge");
  g.lineWidth = 1;
  g.strokeRect(left + 0.5, height - 5.5, right - left - 1, 5);
  g.restore();
}

function endLabels(series, points, scale, height, write) {
  if (!scale) return [h("span", { class: "row-value", style: { top: `${height / 2 - 8}px` } }, "not seen")];
  const labels = [];
  series.forEach((s, i) => {
    const last = points[i].filter(([, v]) => v !== null && Number.isFinite(v) && (!scale.log || v > 0)).at(-1);
    if (last && s.label !== "") labels.push([scale.y(last[1]), s.label ?? write(last[1]), s.tone]);
  });
  labels.sort((a, b) => (b[2] !== "soft") - (a[2] !== "soft"));
  const placed = [];
  for (const [y, text, tone] of labels) {
    if (placed.every((p) => Math.abs(p[0] - y) >= LABEL_HEIGHT)) placed.push([y, text, tone]);
  }
  return placed.map(([y, text, tone]) => {
    const top = Math.min(Math.max(y - 8, -2), height - 14);
    return h("span", { class: `end-label${tone === "soft" ? " soft" : ""}`, title: text, style: { top: `${top}px` } }, text);
  });
}

function describe({ series }, title, step, write) {
  const rows = [];
  let at = null;
  for (const s of series) {
    const i = nearest(s.steps, step);
    if (i < 0) continue;
    at ??= s.steps[i];
    rows.push([s.name, s.values[i] === null ? "not seen" : write(s.values[i]), s.tone === "soft" ? undefined : toneOf(s.tone)]);
  }
  if (at === null) return null;
  const more = rows.length - 8;
  rows.sort((a, b) => Boolean(b[2]) - Boolean(a[2]));
  return { title: `${title}, step ${count(at)}`, rows: rows.slice(0, 8), note: more > 0 ? `and ${more} more` : "" };
}

/** Return the index of the step that is nearest, -1 if there is none. Steps ascend. */
export function nearest(steps, step) {
  let low = 0, high = steps.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
}
