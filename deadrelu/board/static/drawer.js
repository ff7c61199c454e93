// Drawer: one unit - what it did over the steps, whether it died, of what, and what says so.

import { deadStretches } from "./cells.js";
import { fill, h, set, setStyle, watcher } from "./dom.js";
import { causeWords, count, number, percent, signed } from "./format.js";
import { createLines } from "./lines.js";
import { DEAD, UNSEEN, causeColour } from "./palette.js";
import { borders, valueOf } from "./scale.js";
import { isDark } from "./theme.js";

const PARTS = { weight: "its weights moved", decay: "weight decay", bias: "its bias moved", input: "its inputs moved" };

/** Return `{element, update}`. */
export function createDrawer({ state, timeline, tip }) {
  const shared = { timeline, tip };
  const charts = {
    rate: createLines(shared, { title: "activation rate", height: 58, write: percent }),
    grad: createLines(shared, { title: "gradient flow", height: 58 }),
    bias: createLines(shared, { title: "bias", height: 58, write: signed }),
  };
  const title = h("h3", { tabindex: "-1" });
  const story = h("div", { class: "death-story" });
  const close = h("button", { class: "chip", type: "button", on: { click: () => state.set({ unit: null }) } }, "Close");
  const element = h("section", { class: "drawer", "aria-label": "Unit", hidden: true },
    h("header", { class: "drawer-head" }, title, close), ...Object.values(charts).map((chart) => chart.element), story);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !timeline.zoomed()) state.set({ unit: null });
  });
  const changed = watcher();

  return {
    element,
    update(model) {
      const { unit } = state.get();
      const { site, codes, document, deathsOf } = model;
      const there = site !== null && unit !== null && unit < site.units;
      set(element, "hidden", !there);
      if (!there) return;
      const width = element.clientWidth;
      if (!changed(document, site, unit, codes.rate, codes.grad, codes.bias, isDark(), width, devicePixelRatio, ...timeline.domain)) return;
      const deaths = deathsOf(site.site, unit);
      fill(title, `Unit ${count(unit)} of `, h("span", { class: "name" }, site.site), h("span", { class: "state" }, ` ${standing(deaths.at(-1))}`));
      for (const [name, chart] of Object.entries(charts)) {
        set(chart.element, "hidden", !site.channels[name] || !codes[name]);
        if (site.channels[name] && codes[name]) chart.update(seriesOf(site, codes[name], unit, name, deaths));
      }
      fill(story, ...(deaths.length ? deaths.map(autopsy).reverse() : [h("p", { class: "quiet" }, "This unit was never dead.")]));
    },
  };
}

function standing(death) {
  if (!death) return "is alive";
  if (death.revived !== null) return `is alive again since step ${count(death.revived)}`;
  return death.born_dead ? "never fired" : `died at step ${count(death.killed_by_step)}`;
}

function seriesOf(site, codes, unit, name, deaths) {
  const channel = site.channels[name];
  const dead = deadStretches(site, codes, unit, deaths, borders(site.steps));
  const values = site.steps.map((_, record) => {
    const code = codes[record * site.units + unit];
    return code === DEAD || code === UNSEEN ? null : valueOf(code, channel);
  });
  const label = codes[(site.steps.length - 1) * site.units + unit] === DEAD ? "dead" : undefined;
  return { series: [{ name, steps: site.steps, values, tone: "strong", label }], dead, zero: name === "rate", log: name === "grad" };
}

function autopsy(death) {
  const back = death.revived === null ? "" : `, and fired again at step ${count(death.revived)}`;
  const when = death.born_dead ? `Silent since the first step, confirmed at step ${count(death.confirmed)}` :
    `Last fired at step ${count(death.last_fired)}; the update of step ${count(death.killed_by_step)} silenced it, confirmed at step ${count(death.confirmed)}`;
  return h("div", { class: "autopsy" },
    h("p", { class: "cause" }, h("i", { class: "swatch", style: { background: causeColour(death.cause, isDark()) } }), sentenceOf(death)),
    h("p", { class: "quiet" }, `${when}${back}.`),
    death.shares ? shares(death) : null,
    facts(death));
}

function sentenceOf(death) {
  const words = causeWords(death.cause);
  const what = death.cause === "unknown" ? "Nothing that was measured tells why." : `${words[0].toUpperCase()}${words.slice(1)}.`;
  return [what, death.parameter ? ` ${death.parameter} did it.` : "", death.origin ? ` It comes from ${death.origin}.` : ""].join("");
}

// How far each part moved the margin: bars to the left lowered it, towards death.
function shares(death) {
  const largest = Math.max(1e-12, ...Object.values(death.shares).map((v) => Math.abs(v ?? 0)));
  const rows = Object.entries(PARTS).map(([part, words]) => {
    const value = death.shares[part] ?? null;
    const bar = h("i", { class: value < 0 ? "down" : "up" });
    setStyle(bar, { width: `${(Math.abs(value ?? 0) / largest) * 50}%` });
    return h("div", { class: "share", role: "row" }, h("span", { role: "cell" }, words), h("span", { class: "share-bar", "aria-hidden": "true" }, bar),
      h("span", { class: "value", role: "cell" }, signed(value)));
  });
  const margin = `What moved its margin from ${number(death.margin_before)} to ${number(death.margin_after)} ` +
    "(mean + 2 standard deviations of its input; below zero it is silent):";
  return h("div", {}, h("p", { class: "quiet" }, margin), h("div", { class: "shares", role: "table" }, ...rows));
}

function facts(death) {
  const evidence = death.cause_evidence === "intervention" ? "shown: alive after the same update at a lower rate" : "read off what the run did";
  const rows = [
    ["how the cause is known", ["unknown", "born_dead"].includes(death.cause) ? null : evidence],
    ["learning rate then", death.lr === null ? null : number(death.lr)],
    ["would have spared it", death.safe_lr === null ? null : `${number(death.safe_lr)} or less`],
    ["largest jump of one update", death.kick === null ? null : `${number(death.kick)} standard deviations`],
    ["largest z, before and after", death.max_z_before === null ? null : `${number(death.max_z_before)} → ${number(death.max_z_after)}`],
    ["dated to within", death.resolution > 1 ? `${count(death.resolution)} steps` : null],
  ].filter(([, value]) => value !== null);
  return h("dl", { class: "facts" }, ...rows.flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]));
}
