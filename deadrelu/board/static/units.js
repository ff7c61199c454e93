// Units: those of one layer of a report - in one line, or as a grid of squares in which each can be asked.

import { fill, h, set, setStyle, setText } from "./dom.js";
import { count, elide, many, number, percent } from "./format.js";
import { BLACK, DEAD, UNSEEN, codeColours, hatchColours, onHatch } from "./palette.js";
import { isDark } from "./theme.js";

const SIDES = [18, 14, 11, 9, 7, 5, 4, 3, 2, 1]; // pixels of a square
const TALLEST = 300;
const STATES = ["dead", "undecided", "rare", "always_on", "saturated", "stuck_negative"];

/** The scale on which activation rates are coloured. */
export const CHANNEL = { low: 1e-4, high: 1, scale: "log" };

/** Return the code of each unit: 0 dead, 255 undecided or not seen, else its activation rate on `CHANNEL`. */
export function codesOf(site) {
  const codes = Uint8Array.from(site.activation_rate, (rate) =>
    (rate === null ? UNSEEN : 1 + Math.round(253 * Math.min(1, Math.max(0, 1 + Math.log10(Math.max(rate, 1e-9)) / 4)))));
  for (const unit of site.undecided) codes[unit] = UNSEEN;
  for (const unit of site.dead) codes[unit] = DEAD;
  return codes;
}

/** Draw the units from left to right. Where a pixel stands for several, dead ones blacken their share of its height. */
export function drawStripe(canvas, codes) {
  const dpr = Math.min(devicePixelRatio || 1, 2);
  const [width, height] = [Math.round(canvas.clientWidth * dpr), Math.round(canvas.clientHeight * dpr)];
  if (!width || !height || !codes.length) return;
  [canvas.width, canvas.height] = [width, height];
  const g = canvas.getContext("2d");
  const image = g.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = codeColours("rate", CHANNEL);
  const hatching = hatchColours(isDark());
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x * codes.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * codes.length) / width));
    const part = codes.subarray(from, to);
    const dead = part.filter((code) => code === DEAD).length;
    const alive = part.filter((code) => code !== DEAD && code !== UNSEEN);
    const colour = alive.length ? colours[Math.round(alive.reduce((a, b) => a + b, 0) / alive.length)] : null;
    const black = dead ? Math.max(2, (dead / part.length) * height) : 0;
    for (let y = 0; y < height; y++) {
      pixels[y * width + x] = y < black ? BLACK : colour ?? hatching[onHatch(x, y) ? 1 : 0];
    }
  }
  g.putImageData(image, 0, 0);
}

/** Return `{element, update(site)}`: the units of one layer as squares. */
export function createGrid({ state, tip }) {
  let site = null, codes = new Uint8Array(0), side = SIDES[0], across = 1;
  const title = h("h2", {});
  const hint = h("p", {});
  const canvas = h("canvas", {
    tabindex: "0", role: "application", "aria-roledescription": "plot",
    "aria-label": "Units of the chosen layer. Arrow keys move from unit to unit.",
  });
  const chosen = h("div", { class: "chosen-cell", hidden: true });
  const about = h("dl", { class: "facts" });
  const element = h("section", { class: "panel", "aria-label": "Units" }, h("header", { class: "panel-head" }, title, hint),
    h("div", { class: "grid-room" }, canvas, chosen), about);

  const unitAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const unit = Math.floor((event.clientY - box.top) / side) * across + Math.floor((event.clientX - box.left) / side);
    return site && event.clientX - box.left < across * side && unit >= 0 && unit < site.units ? unit : null;
  };
  canvas.addEventListener("pointermove", (event) => {
    const unit = unitAt(event);
    if (unit === null) tip.hide();
    else tip.show(event.clientX, event.clientY, { title: `unit ${count(unit)}`, rows: facts(site, unit).slice(0, 4) });
  });
  canvas.addEventListener("pointerleave", () => tip.hide());
  canvas.addEventListener("click", (event) => {
    const unit = unitAt(event);
    if (unit !== null) state.set({ unit });
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (!by || !site) return;
    event.preventDefault();
    const from = state.get().unit;
    const unit = from === null ? 0 : Math.min(site.units - 1, Math.max(0, from + by));
    state.set({ unit });
    tip.say({ title: `unit ${count(unit)}`, rows: facts(site, unit) });
  });

  return {
    element,
    update(next) {
      set(element, "hidden", !next);
      if (!next) return;
      if (next !== site) [site, codes] = [next, codesOf(next)];
      const width = canvas.parentElement.clientWidth;
      side = SIDES.find((s) => Math.ceil(site.units / Math.max(1, Math.floor(width / s))) * s <= TALLEST) ?? 1;
      across = Math.max(1, Math.min(site.units, Math.floor(width / side)));
      paint(canvas, codes, side, across, width);
      setText(title, `Units of ${elide([site.site], 70)[0]}`);
      set(title, "title", site.site);
      const lost = site.can_die ? `, ${count(site.dead.length)} of them dead` : "";
      setText(hint, `${many(site.units, "square")}, one for each unit from 0 on${lost}. Choose one.`);
      const { unit } = state.get();
      const there = unit !== null && unit < site.units;
      set(chosen, "hidden", !there);
      set(about, "hidden", !there);
      if (!there) return;
      setStyle(chosen, { left: `${(unit % across) * side}px`, top: `${Math.floor(unit / across) * side}px`, width: `${side}px`, height: `${side}px` });
      fill(about, ...[["unit", count(unit)], ...facts(site, unit)].flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]));
    },
  };
}

function paint(canvas, codes, side, across, width) {
  const dpr = Math.min(devicePixelRatio || 1, 2);
  const height = Math.max(1, Math.ceil(codes.length / across)) * side;
  [canvas.width, canvas.height] = [Math.round(width * dpr), Math.round(height * dpr)];
  setStyle(canvas, { height: `${height}px` });
  const g = canvas.getContext("2d");
  const image = g.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = codeColours("rate", CHANNEL);
  const hatching = hatchColours(isDark());
  const gap = side > 4 ? 1 : 0;
  for (let unit = 0; unit < codes.length; unit++) {
    const [left, top] = [Math.round((unit % across) * side * dpr), Math.round(Math.floor(unit / across) * side * dpr)];
    const tall = Math.max(1, Math.round((side - gap) * dpr));
    for (let y = top; y < Math.min(canvas.height, top + tall); y++) {
      for (let x = left; x < Math.min(canvas.width, left + tall); x++) {
        pixels[y * canvas.width + x] = codes[unit] === UNSEEN ? hatching[onHatch(x, y) ? 1 : 0] : colours[codes[unit]];
      }
    }
  }
  g.putImageData(image, 0, 0);
}

function facts(site, unit) {
  const status = STATES.find((name) => site[name].includes(unit)) ?? "active";
  const said = site.claims.filter((claim) => claim.unit === unit).map((claim) => `${claim.claim} (${claim.level})`);
  const rows = [
    ["state", status.replace("_", " ")],
    ["activation rate", percent(site.activation_rate[unit])],
    ["samples that made it fire", percent(site.sample_rate[unit])],
    ["at most, with confidence", percent(site.rate_upper[unit])],
    ["largest z", number(site.max_z[unit])],
    ["gradient flow", site.grad_flow ? number(site.grad_flow[unit]) : null],
    ["gradient", site.grad_dead.includes(unit) ? "exactly 0 on everything seen" : null],
    ["inputs", site.input_dead.includes(unit) ? "0 on everything seen" : null],
    ["claims", said.length ? said.join(", ") : null],
  ];
  return rows.filter(([, value]) => value !== null);
}
