// Strip: one row per layer in order of execution, coloured by the fraction of its units that is dead. A click selects.

import { fill, h, set, watcher } from "./dom.js";
import { count, elide, many, percent } from "./format.js";
import { harmColour, harmGradient, hatch } from "./palette.js";
import { createPlot } from "./plot.js";
import { isDark } from "./theme.js";

const TALLEST = 24, LOWEST = 1, ALL_ROWS = 460; // pixels
const LABEL_HEIGHT = 15;

/** Return `{element, update}`. */
export function createStrip({ state, timeline, tip }) {
  let sites = [], row = TALLEST;
  const at = (y) => Math.min(sites.length - 1, Math.max(0, Math.floor(y / row)));
  const chosen = () => Math.max(0, sites.findIndex((s) => s.site === state.get().site));
  const choose = (index) => state.set({ site: sites[Math.min(sites.length - 1, Math.max(0, index))].site, unit: null });

  const plot = createPlot(timeline, tip, {
    label: "Dead fraction of each layer over steps. Up and down choose a layer, left and right move along the steps.",
    describe: ({ step, y }) => (sites.length ? describe(sites[at(y)], timeline.windowAt(step), timeline.steps) : null),
    pick: ({ y }) => sites.length && choose(at(y)),
    at: () => (chosen() + 0.5) * row,
    keys: (event) => {
      if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return false;
      choose(chosen() + (event.key === "ArrowDown" ? 1 : -1));
      return true;
    },
  });
  plot.element.classList.add("strip");
  const legend = h("span", { class: "ramp" });
  const element = h("section", { class: "panel", "aria-label": "Layers" },
    h("header", { class: "panel-head" },
      h("h2", {}, "Layers"),
      h("p", {}, "How much of each layer is dead, from the input down. Choose one to look inside."),
      h("div", { class: "legend" }, h("span", {}, "none dead"), legend, h("span", {}, "all dead"))),
    plot.element);
  const changed = watcher();

  return {
    element,
    update({ document }) {
      sites = document.sites;
      set(element, "hidden", !sites.length);
      row = Math.min(TALLEST, Math.max(LOWEST, ALL_ROWS / Math.max(1, sites.length)));
      if (row >= 8) row = Math.floor(row);
      const height = Math.max(1, sites.length) * row;
      legend.style.setProperty("background", harmGradient(isDark()));
      plot.draw(height, (g, frame) => sites.forEach((site, i) => paint(g, frame, timeline, site, i * row, row)));
      if (changed(document, state.get().site, row)) label(plot, sites, row, chosen(), choose);
    },
  };
}

function paint(g, { width, scale, dpr }, timeline, site, top, row) {
  const gap = row > 9 ? 2 : row > 4 ? 1 : 0;
  const { edges } = timeline;
  const dark = isDark();
  if (!site.can_die) {
    hatch(g, 0, top, width, row - gap, dark);
    return;
  }
  const snap = (x) => Math.round(x * dpr) / dpr; // a border inside of a pixel would show as a seam
  let from = timeline.windowAt(timeline.domain[0]);
  const last = timeline.windowAt(timeline.domain[1] - 1e-9);
  let left = Math.max(0, snap(scale.x(edges[from])));
  while (from <= last) {
    let worst = site.dead_fraction[from], to = from + 1;
    // several windows on one pixel: the worst of them is shown
    while (to <= last && scale.x(edges[to + 1]) - left < 1) {
      const next = site.dead_fraction[to++];
      if (next !== null && (worst === null || next > worst)) worst = next;
    }
    while (to <= last && site.dead_fraction[to] === worst) to++; // a long stretch of the same is one rectangle
    const right = Math.min(width, snap(scale.x(edges[to])));
    if (worst === null) hatch(g, left, top, right - left, row - gap, dark);
    else {
      g.fillStyle = harmColour(worst, dark);
      g.fillRect(left, top, right - left, row - gap);
    }
    [from, left] = [to, right];
  }
}

// Rows that are lower than a line of text are named where there is room: the chosen one first, then the worst.
function label(plot, sites, row, chosen, choose) {
  const names = elide(sites.map((s) => s.site), 19);
  const taken = [];
  const shown = new Set();
  const order = sites.map((s, i) => i).sort((a, b) => (b === chosen) - (a === chosen) || lastOf(sites[b]) - lastOf(sites[a]));
  for (const i of order) {
    const middle = (i + 0.5) * row;
    if (row < LABEL_HEIGHT && taken.some((m) => Math.abs(m - middle) < LABEL_HEIGHT)) continue;
    taken.push(middle);
    shown.add(i);
  }
  const place = (i) => ({ top: `${(i + 0.5) * row - LABEL_HEIGHT / 2}px` });
  const visible = [...shown].sort((a, b) => a - b);
  fill(plot.left, ...visible.map((i) => h("button", {
    class: "row-name", type: "button", tabindex: "-1", title: sites[i].site, style: place(i),
    "aria-pressed": i === chosen ? "true" : "false", on: { click: () => choose(i) },
  }, names[i])));
  fill(plot.right, ...visible.map((i) => h("span", { class: "row-value", style: place(i) }, summary(sites[i]))));
  set(plot.canvas, "aria-description", `${sites[chosen]?.site ?? "no layer"} is chosen`);
}

function lastOf(site) {
  for (let i = site.dead_fraction.length - 1; i >= 0; i--) if (site.dead_fraction[i] !== null) return site.dead_fraction[i];
  return -1;
}

function summary(site) {
  if (!site.can_die) return "cannot die";
  const last = lastOf(site);
  if (last < 0) return "not seen";
  const dead = site.dead ?? Math.round(last * site.units);
  return dead ? `${count(dead)} of ${count(site.units)} dead` : `all ${count(site.units)} alive`;
}

function describe(site, index, steps) {
  const rows = [];
  if (site.can_die) rows.push(["dead", percent(site.dead_fraction[index])], ["silent", percent(site.silent_fraction[index])]);
  const fed = site.producers.length ? `fed by ${site.producers.join(", ")}` : "";
  return {
    title: `${site.site}, step ${count(steps[index] ?? 0)}`,
    rows,
    note: [site.can_die ? "" : `${site.op} has no flat part: it cannot die`, many(site.units, site.op === "" ? "unit" : `${site.op} unit`), fed]
      .filter(Boolean).join(" · "),
  };
}
