// Words and numbers: how they are written on the page. The words for causes are those of the terminal.

import { visible } from "./dom.js";

const CAUSE_WORDS = {
  learning_rate: "too high a learning rate",
  bias_drift: "a falling bias",
  weight_drift: "drifting weights",
  weight_decay: "weight decay",
  input_shift: "inputs that moved",
  upstream_death: "units upstream that died",
  born_dead: "silent from the first step",
  non_finite: "NaN or infinity",
  unknown: "unknown",
};

/** The causes, in the order in which they are stacked and listed. */
export const CAUSES = Object.keys(CAUSE_WORDS);

/** Return a cause in words. A cause that this page does not know is shown as it is called. */
export function causeWords(cause) {
  return cause === null || cause === undefined ? "" : (Object.hasOwn(CAUSE_WORDS, cause) ? CAUSE_WORDS[cause] : String(cause));
}

/** 12345 -> "12,345" */
export function count(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, ",").replace("-", "−");
}

/** (1, "unit") -> "1 unit"; (3, "unit") -> "3 units" */
export function many(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A fraction as per cent. What is not nothing never reads as nothing. */
export function percent(fraction) {
  if (fraction === null || fraction === undefined || Number.isNaN(fraction)) return "not seen";
  if (fraction === 0 || fraction === 1) return `${100 * fraction} %`;
  if (fraction < 0.001) return "<0.1 %";
  if (fraction > 0.999) return ">99.9 %";
  return `${(100 * fraction).toFixed(fraction < 0.1 ? 1 : 0)} %`;
}

/** A number with a few significant digits and a true minus sign; null reads as a dash. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size < 1e-3 || size >= 1e6) text = value.toExponential(Math.max(0, digits - 1)).replace(/\.?0+e/, "e").replace("e+", "e");
  else text = String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

/** Like `number`, with a plus sign before what is positive. */
export function signed(value, digits = 3) {
  return value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

/** 7300 -> "2 hours ago" */
export function ago(seconds) {
  const units = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const [length, noun] = units.find(([length]) => seconds >= length) ?? units.at(-1);
  return `${many(Math.floor(seconds / length), noun)} ago`;
}

/** [948, 955] -> "steps 948 to 955" */
export function stretch(first, last) {
  return first === last ? `step ${count(first)}` : `steps ${count(first)} to ${count(last)}`;
}

/** Return names cut in their middle to `width` characters, at the place that keeps the most of them distinct. */
export function elide(given, width) {
  const names = given.map((name) => (name === "" ? "(no name)" : visible(name)));
  const room = Math.max(2, width - 1);
  const heads = [...Array(room + 1).keys()].sort((a, b) => Math.abs(2 * a - room) - Math.abs(2 * b - room));
  const wanted = new Set(names).size;
  let best = [], most = 0;
  for (const head of heads) {
    const cut = names.map((name) => around(name, width, head, room - head));
    const distinct = new Set(cut).size;
    if (distinct > most) [best, most] = [cut, distinct];
    if (distinct === wanted) break;
  }
  return best;
}

function around(name, width, head, tail) {
  const letters = [...name];
  if (letters.length <= width) return name;
  return `${letters.slice(0, head).join("")}…${tail ? letters.slice(-tail).join("") : ""}`;
}
