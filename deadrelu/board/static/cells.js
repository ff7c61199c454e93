// Cells: the codes of one site, records x units, put in order and drawn as pixels.
// Where a pixel stands for several units or records, its colour is their mean, and black dots say how many are dead:
// their density is the dead share, and never less than a quarter, so that one dead unit among thousands is seen.

import { BLACK, DEAD, UNSEEN, hatchColours, onHatch } from "./palette.js";

const FAINTEST = 0.25;
// Evenly spread dots of any density. Each line of four has one of the four smallest: a line of pixels is never without.
const DOTS = [0, 8, 4, 12, 9, 1, 13, 5, 6, 14, 2, 10, 15, 7, 11, 3];

/** Return the units from the top row down: the dead by the step of their death, then the living by their index. */
export function rowsInOrder(site, order) {
  const units = Int32Array.from({ length: site.units }, (_, unit) => unit);
  if (order !== "death") return units;
  const dies = site.death_step.map((step) => (step === null ? Infinity : step));
  return units.sort((a, b) => (dies[a] === dies[b] ? a - b : dies[a] - dies[b]));
}

/**
 * Return the stretches [from, to) of steps in which a unit is dead. Silence is long before it is sure: each stretch begins
 * where its death is dated to, not with the window that confirmed it.
 */
export function deadStretches(site, codes, unit, deaths, edges) {
  const found = [];
  for (let record = 0; record < site.steps.length; record++) {
    if (codes[record * site.units + unit] !== DEAD) continue;
    const [from, to] = [edges[record], edges[record + 1]];
    if (found.at(-1)?.[1] === from) found.at(-1)[1] = to;
    else found.push([dated(deaths, from, to), to]);
  }
  return found;
}

// Return since when a unit is dead that is so at the end of the window [from, to).
function dated(deaths, from, to) {
  const death = deaths.findLast((d) => d.confirmed < to && (d.revived === null || d.revived >= from));
  return death ? Math.min(from, (death.killed_by_step ?? -1) + 1) : from;
}

/** Return the columns of an image: pixels [left, right) show the records [from, to). */
export function columnsOf(edges, scale, pixels) {
  const found = [];
  const each = scale.width / pixels;
  const records = edges.length - 1;
  const pixel = (record) => Math.min(pixels, Math.floor(scale.x(edges[record]) / each + 1e-6));
  let left = Math.max(0, pixel(0)); // a layer may have appeared late
  for (let record = 0; record < records && left < pixels;) {
    if (scale.x(edges[record + 1]) <= 0) {
      record++;
      continue;
    }
    let to = record + 1;
    while (to < records && pixel(to) <= left) to++;
    const right = Math.max(left + 1, pixel(to)); // the last records may share less than a pixel
    found.push({ left, right, from: record, to });
    left = right;
    record = to;
  }
  return found;
}

/** Fill a packed image of `width` x `height` pixels: `rows` are units from the top, `colours` belong to codes. */
export function raster(pixels, { width, height, cells, units, rows, columns, colours, dark }) {
  const bins = Math.min(units, height);
  const binOf = new Int32Array(units);
  rows.forEach((unit, place) => { binOf[unit] = Math.floor((place * bins) / units); });
  const sums = { code: new Float64Array(bins), alive: new Int32Array(bins), dead: new Int32Array(bins) };
  const hatching = hatchColours(dark);
  blank(pixels, width, height, columns, hatching);
  for (const column of columns) {
    add(sums, cells, units, column, binOf);
    for (let bin = 0; bin < bins; bin++) {
      const [top, bottom] = [Math.floor((bin * height) / bins), Math.floor(((bin + 1) * height) / bins)];
      const [alive, dead] = [sums.alive[bin], sums.dead[bin]];
      const seen = alive + dead > 0;
      const colour = alive ? colours[Math.round(sums.code[bin] / alive)] : BLACK;
      const share = dead ? Math.max(FAINTEST, dead / (alive + dead)) : 0;
      for (let y = top; y < bottom; y++) {
        for (let x = column.left; x < column.right; x++) {
          const at = y * width + x;
          if (!seen) pixels[at] = hatching[onHatch(x, y) ? 1 : 0];
          else pixels[at] = share * 16 > DOTS[(y % 4) * 4 + (x % 4)] ? BLACK : colour;
        }
      }
    }
  }
}

// Where there is no record at all, nothing was measured.
function blank(pixels, width, height, columns, hatching) {
  const covered = new Uint8Array(width);
  for (const { left, right } of columns) covered.fill(1, left, right);
  for (let x = 0; x < width; x++) {
    if (!covered[x]) for (let y = 0; y < height; y++) pixels[y * width + x] = hatching[onHatch(x, y) ? 1 : 0];
  }
}

function add(sums, cells, units, { from, to }, binOf) {
  sums.code.fill(0);
  sums.alive.fill(0);
  sums.dead.fill(0);
  for (let record = from; record < to; record++) {
    const start = record * units;
    for (let unit = 0; unit < units; unit++) {
      const code = cells[start + unit];
      const bin = binOf[unit];
      if (code === DEAD) sums.dead[bin]++;
      else if (code !== UNSEEN) {
        sums.alive[bin]++;
        sums.code[bin] += code;
      }
    }
  }
}
