// Heat map: every unit of one layer over the steps. Dead is black; a click opens the unit.

import { columnsOf, deadStretches, raster, rowsInOrder } from "./cells.js";
import { createChoice } from "./controls.js";
import { fill, h, set, setStyle, setText, watcher } from "./dom.js";
import { causeWords, count, elide, many, number, percent, signed } from "./format.js";
import { DEAD, UNSEEN, codeColours, legendGradient } from "./palette.js";
import { createPlot } from "./plot.js";
import { borders, valueOf, windowAt } from "./scale.js";
import { isDark } from "./theme.js";

const TALLEST = 380, ROW = 24, READABLE = 13; // pixels
const NAMES = { rate: "activation rate", grad: "gradient flow", bias: "bias" };

/** Return what a code says, in words. */
export function codeWords(code, name, channel) {
  if (code === DEAD) return "dead";
  if (code === UNSEEN || code === undefined || !channel) return "not measured";
  const value = valueOf(code, channel);
  if (name === "rate") return code === 1 ? "silent in this window" : percent(value);
  if (name === "grad" && code === 1 && channel.scale === "log") return "0, or next to it";
  return name === "bias" ? signed(value) : number(value);
}

/** Return `{element, update}`. */
export function createHeatmap({ state, timeline, tip }) {
  let model = null, rows = new Int32Array(0), edges = borders([]), height = TALLEST;
  const rowOf = (unit) => rows.indexOf(unit);
  const unitAt = (y) => rows[Math.min(rows.length - 1, Math.max(0, Math.floor((y / height) * rows.length)))];
  const open = (place) => rows.length && state.set({ unit: rows[Math.min(rows.length - 1, Math.max(0, place))] });

  const plot = createPlot(timeline, tip, {
    label: "Units of the chosen layer over steps. Up and down choose a unit, left and right move along the steps.",
    describe: ({ step, y }) => (model?.cells && rows.length ? describe(model, unitAt(y), step, edges, perRow()) : null),
    pick: ({ y }) => rows.length && state.set({ unit: unitAt(y) }),
    at: () => ((Math.max(0, rowOf(state.get().unit)) + 0.5) / Math.max(1, rows.length)) * height,
    keys: (event) => {
      if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return false;
      const by = (event.key === "ArrowDown" ? 1 : -1) * (event.shiftKey ? 10 : 1);
      open(state.get().unit === null ? 0 : rowOf(state.get().unit) + by);
      return true;
    },
  });
  plot.element.classList.add("heatmap");
  const marker = h("div", { class: "unit-line" });
  const waiting = h("div", { class: "waiting" });
  plot.body.append(marker, waiting);
  const perRow = () => Math.max(1, Math.round(rows.length / Math.max(1, height)));

  const title = h("h2", {});
  const hint = h("p", {});
  const legend = createLegend();
  const colour = createChoice("colour", Object.entries(NAMES), (channel) => state.set({ channel }));
  const order = createChoice("order", [["death", "by death"], ["index", "by index"]], (value) => state.set({ order: value }));
  const element = h("section", { class: "panel", "aria-label": "Units" },
    h("header", { class: "panel-head" }, title, hint, h("div", { class: "tools" }, colour.element, order.element, legend.element)),
    plot.element);
  const changed = watcher();
  const ordered = watcher();

  function update(next) {
    model = next;
    const { site, cells } = model;
    const chosen = state.get();
    set(element, "hidden", !model.document.sites.length);
    const channel = site?.channels[chosen.channel];
    setText(title, chosen.site === null ? "Units" : `Units of ${elide([chosen.site], 70)[0]}`);
    set(title, "title", chosen.site);
    setText(hint, site ? sentence(site, height) : "");
    colour.show(chosen.channel, (name) => !site || Boolean(site.channels[name]));
    order.show(chosen.order);
    waiting.classList.toggle("on", !cells);
    setText(waiting, site && !channel ? "The units of this layer were not recorded." : "Reading the units…");
    const units = model.document.sites.find((s) => s.site === chosen.site)?.units;
    if (units !== undefined) setStyle(plot.body, { height: `${heightOf(units)}px` }); // before the cells are there: nothing jumps then
    if (!site) return;
    if (ordered(site, chosen.order)) rows = rowsInOrder(site, chosen.order);
    edges = borders(site.steps);
    height = heightOf(site.units);
    if (channel) legend.show(chosen.channel, channel);
    const stale = changed(cells, channel, chosen.order, height, isDark(), plot.body.clientWidth, devicePixelRatio, ...timeline.domain);
    if (stale && cells && channel) plot.draw(height, (g, frame) => paint(g, frame, model, rows, edges, chosen.channel));
    name();
  }

  // Beside the plot: the index of each unit where there is room, else how many died and how many live.
  function name() {
    const chosen = state.get();
    const each = height / Math.max(1, rows.length);
    const at = rowOf(chosen.unit);
    marker.classList.toggle("on", at >= 0);
    if (at >= 0) setStyle(marker, { top: `${at * each}px`, height: `${Math.max(2, each)}px` });
    const labels = each >= READABLE ? [...rows].map((unit, i) => [String(unit), (i + 0.5) * each, unit === chosen.unit]) : [];
    if (!labels.length) labels.push(...ends(model.site, rows, chosen, at, each, height));
    fill(plot.left, ...labels.map(([text, y, on]) => h("span", { class: `unit-name${on ? " on" : ""}`, style: { top: `${y}px` } }, text)));
    fill(plot.right, ...(chosen.order === "death" ? shares(model.site, height) : []));
    set(plot.canvas, "aria-description", chosen.unit === null ? null : `unit ${chosen.unit} is chosen`);
  }

  return { element, update };
}

function heightOf(units) {
  return Math.max(ROW, Math.min(TALLEST, units <= 12 ? units * ROW : Math.max(288, units * 3)));
}

function paint(g, { width, scale, dpr }, { site, cells, deathsOf }, rows, edges, name) {
  const [w, t] = [g.canvas.width, g.canvas.height];
  const image = g.createImageData(w, t);
  const columns = columnsOf(edges, { ...scale, width }, w);
  const colours = codeColours(name, site.channels[name]);
  raster(new Uint32Array(image.data.buffer), { width: w, height: t, cells, units: site.units, rows, columns, colours, dark: isDark(), dpr });
  g.putImageData(image, 0, 0);
  if (rows.length > t) return; // rows that share a pixel show windows as they are
  g.fillStyle = "#000";
  rows.forEach((unit, place) => {
    const deaths = deathsOf(site.site, unit);
    if (!deaths.length) return;
    const [top, bottom] = [place, place + 1].map((row) => Math.floor((row * t) / rows.length) / dpr);
    for (const [from, to] of deadStretches(site, cells, unit, deaths, edges)) g.fillRect(scale.x(from), top, scale.x(to) - scale.x(from), bottom - top);
  });
}

function ends(site, rows, chosen, at, each, height) {
  const died = chosen.order === "death" && site.death_step.some((step) => step !== null); // else their order is that of the index
  const first = died ? "first to die" : "unit 0";
  const last = !died ? `unit ${count(rows.length - 1)}` : site.death_step.includes(null) ? "alive" : "last to die";
  const labels = rows.length > 1 ? [[first, 7, false], [last, height - 7, false]] : [];
  const y = (at + 0.5) * each;
  const free = labels.filter(([, other]) => at < 0 || Math.abs(other - y) > READABLE);
  return at < 0 ? labels : [...free, [`unit ${count(chosen.unit)}`, y, true]];
}

function shares(site, height) {
  const dead = site.death_step.filter((step) => step !== null).length;
  const parts = [[dead, "dead", 0, dead], [site.units - dead, "alive", dead, site.units]].filter(([n]) => n > 0);
  return parts.map(([n, words, from, to]) => {
    const [top, tall] = [(from / site.units) * height, ((to - from) / site.units) * height];
    const text = tall < 14 && parts.length > 1 && words === "alive" && height - top < 14 ? { top: `${top - 8}px` } : {};
    return h("div", { class: `bracket ${words}`, style: { top: `${top + 1}px`, height: `${Math.max(2, tall - 2)}px` } },
      h("span", { style: text }, `${count(n)} ${words}`));
  });
}

function sentence(site, height) {
  const rows = Math.floor(height * Math.min(devicePixelRatio || 1, 2));
  const binned = site.units > rows ? ` A line of pixels stands for ${many(Math.round(site.units / rows), "unit")}; dots of black are dead ones.` : "";
  return `${many(site.units, "row")}, one for each unit. A row that turns black has died.${binned}`;
}

function describe({ site, codes, deathsOf }, unit, step, edges, perRow) {
  const record = windowAt(edges, step);
  const rows = [];
  for (const name of Object.keys(NAMES)) {
    const channel = site.channels[name];
    if (codes[name] && channel) rows.push([NAMES[name], codeWords(codes[name][record * site.units + unit], name, channel)]);
  }
  const death = deathsOf(site.site, unit).filter((d) => (d.killed_by_step ?? 0) <= step && (d.revived === null || d.revived > step)).at(-1);
  if (death) rows.push([death.born_dead ? "born dead" : `died at step ${count(death.killed_by_step)}`, causeWords(death.cause)]);
  const note = perRow > 1 ? `about ${perRow} units share this line` : "";
  return { title: `unit ${count(unit)}, step ${count(site.steps[record] ?? 0)}`, rows, note };
}

function createLegend() {
  const ramp = h("span", { class: "ramp" });
  const [low, high] = [h("span"), h("span")];
  const element = h("div", { class: "legend" }, h("i", { class: "swatch dead" }), h("span", {}, "dead"), low, ramp, high,
    h("i", { class: "swatch hatched" }), h("span", {}, "not measured"));
  return {
    element,
    show(name, channel) {
      setText(low, name === "rate" ? percent(channel.low) : number(channel.low));
      setText(high, name === "rate" ? percent(channel.high) : number(channel.high));
      setStyle(ramp, { background: legendGradient(name, channel) });
    },
  };
}
