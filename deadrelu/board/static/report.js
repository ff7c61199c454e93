// Report: an audit, or a training without a record - the verdict, every layer with its units, and what happened.

import { fill, h, set } from "./dom.js";
import { createEvents } from "./events.js";
import { count, many, percent } from "./format.js";
import { createAxis } from "./axis.js";
import { legendGradient } from "./palette.js";
import { createState, decode, encode } from "./state.js";
import { pageAddress } from "./address.js";
import { followTheme } from "./theme.js";
import { createTimeline } from "./timeline.js";
import { createTip } from "./tip.js";
import { createTrack, dateOf } from "./track.js";
import { CHANNEL, codesOf, createGrid, drawStripe } from "./units.js";
import { createVerdict } from "./verdict.js";

const STATES = ["dead", "undecided", "rare", "always_on", "saturated", "stuck_negative"];

/** Show `{verdict, report}` in `root`; the report is that of `report.to_dict()`. */
export function showReport(root, { verdict, report }) {
  const address = pageAddress();
  const state = createState(decode(address.read()));
  const tip = createTip();
  const steps = report.deaths.flatMap((d) => [dateOf(d), d.revived ?? 0]).concat(report.events.map((e) => e.steps[1]));
  const end = steps.reduce((a, b) => Math.max(a, b), 0);
  const timeline = createTimeline((range) => { timeline.shade(null); state.set({ range }); });
  const document = { ...report, run: report.mode, verdict, steps: [end], causes: tally(report.deaths.map((d) => d.cause)) };

  const jump = ({ site }) => {
    if (!report.sites.some((s) => s.site === site)) return;
    state.set({ site, unit: null });
    grid.element.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "nearest" });
  };
  const shared = { state, timeline, tip, jump };
  const words = createVerdict(jump);
  const sites = createSites(report.sites, state);
  const grid = createGrid(shared);
  const history = steps.length ? [createAxis(shared), createTrack(shared)] : [];
  const events = report.events.length ? [createEvents(shared)] : [];

  const top = h("header", { class: "top" },
    h("span", { class: "brand" }, h("i", { class: "brand-mark", "aria-hidden": "true" }), "Dead ReLU"),
    h("span", {}, report.mode), h("span", {}, many(report.sites.length, "layer")), h("span", {}, many(report.units, "unit")));
  const charts = h("div", { class: "charts" }, sites.element, grid.element, ...history.map((part) => part.element));
  root.classList.add("deadrelu");
  fill(root, h("main", { class: "page" }, top, words.element, charts, ...events.map((part) => part.element)), tip.element);

  function paint() {
    const { site, range } = state.get();
    timeline.use(document.steps, range);
    const chosen = report.sites.find((s) => s.site === site) ?? null;
    for (const part of [words, sites, ...history, ...events]) part.update({ document });
    grid.update(chosen);
    root.dataset.state = "shown";
  }
  let frame = 0;
  const schedule = () => { frame ||= requestAnimationFrame(() => { frame = 0; paint(); }); };
  followTheme(root, schedule);
  state.subscribe(() => { address.write(encode(state.get())); schedule(); });
  new ResizeObserver(schedule).observe(charts);
  if (state.get().site === null && report.sites.length) state.set({ site: worst(report.sites) });
  schedule();
}

function tally(names) {
  const found = new Map();
  for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
  return Object.fromEntries(found);
}

function worst(sites) {
  const silent = (s) => s.dead.length + s.undecided.length;
  return sites.reduce((a, b) => (silent(b) * a.units > silent(a) * b.units ? b : a)).site;
}

// The table of layers: what each lost, and all of its units in one line.
function createSites(sites, state) {
  const body = h("tbody");
  const table = h("table", { class: "sites" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Layer"),
    h("th", { scope: "col", class: "number" }, "Dead"), h("th", { scope: "col" }, "Also"), h("th", { scope: "col" }, "Units, one beside the other"))), body);
  const rows = sites.map((site) => {
    const open = () => state.set({ site: site.site, unit: null });
    const stripe = h("canvas", { class: "stripe", "aria-hidden": "true", on: { click: open } });
    const element = h("tr", {},
      h("td", { class: "name" },
        h("button", { class: "jump", type: "button", title: site.site, on: { click: open } }, site.site || "(no name)"),
        h("div", { class: "quiet" }, about(site))),
      h("td", { class: "number" }, ...lost(site)), h("td", { class: "quiet" }, also(site)), h("td", { class: "units" }, stripe));
    return { site, codes: codesOf(site), stripe, element };
  });
  fill(body, ...rows.map((row) => row.element));
  const legend = h("div", { class: "legend" }, h("i", { class: "swatch dead" }), h("span", {}, "dead"), h("span", {}, "fires rarely"),
    h("span", { class: "ramp", style: { background: legendGradient("rate", CHANNEL) } }), h("span", {}, "often"),
    h("i", { class: "swatch hatched" }), h("span", {}, "never seen to fire: too few samples"));
  const element = h("section", { class: "panel", "aria-label": "Layers" }, h("header", { class: "panel-head" },
    h("h2", {}, "Layers"), h("p", {}, "In order of execution. Choose one to see its units."), legend), h("div", { class: "table-room" }, table));
  return {
    element,
    update() {
      for (const { site, codes, stripe, element: row } of rows) {
        set(row, "aria-selected", site.site === state.get().site ? "true" : "false");
        drawStripe(stripe, codes);
      }
    },
  };
}

function about(site) {
  return [site.op, many(site.units, "unit"), site.source].filter(Boolean).join(" · ");
}

function lost(site) {
  if (!site.can_die) return [h("span", { class: "quiet" }, "cannot die")];
  // A checkpoint by itself can prove a death, never that there is none.
  if (site.op === "unknown" && !site.dead.length) return [h("span", { class: "quiet" }, "none proved")];
  return [`${count(site.dead.length)} `, h("span", { class: "quiet" }, percent(site.dead_fraction))];
}

function also(site) {
  const states = STATES.slice(1).filter((name) => site[name].length).map((name) => `${count(site[name].length)} ${name.replace("_", " ")}`);
  const starved = new Set((site.claims ?? []).filter((c) => ["no_gradient", "never_gradient"].includes(c.claim)).map((c) => c.unit));
  return [...states, ...(starved.size ? [`${count(starved.size)} without a gradient`] : [])].join(", ");
}
