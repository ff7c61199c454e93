// Scales: from steps to pixels, from codes to values, and round numbers to write beside them.

/** Return the S + 1 borders of the recorded windows in steps: window i covers borders[i] <= step < borders[i + 1]. */
export function borders(steps) {
  const last = steps.length - 1;
  const found = new Float64Array(steps.length + 1);
  if (last < 0) return found;
  found[0] = last > 0 ? Math.max(0, steps[0] + 1 - (steps[1] - steps[0])) : 0;
  steps.forEach((step, i) => { found[i + 1] = step + 1; });
  return found;
}

/** Return the window that a step lies in; steps outside belong to the first or the last. */
export function windowAt(edges, step) {
  let low = 0, high = edges.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (edges[middle] <= step) low = middle;
    else high = middle - 1;
  }
  return Math.max(0, low);
}

/** Return a linear scale from `[from, to]` to 0..width, with its inverse `step`. */
export function linear([from, to], width) {
  const span = to - from || 1;
  return {
    domain: [from, to],
    width,
    x: (step) => ((step - from) / span) * width,
    step: (x) => from + (x / (width || 1)) * span,
  };
}

/** Return the value of a code in 1..254 on a channel `{low, high, scale}`. */
export function valueOf(code, channel) {
  const place = (code - 1) / 253;
  if (channel.scale === "log") return channel.low * (channel.high / channel.low) ** place;
  return channel.low + place * (channel.high - channel.low);
}

/** Return at most about `most` round numbers in [from, to], multiples of 1, 2 or 5 times a power of ten. */
export function roundTicks(from, to, most, whole = false) {
  if (!(to > from)) return [from];
  const rough = (to - from) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  let each = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999);
  if (whole) each = Math.max(1, Math.round(each));
  const found = [];
  for (let i = Math.ceil(from / each - 1e-9); i * each <= to * (1 + 1e-12); i++) found.push(Number((i * each).toPrecision(12)));
  return found;
}

/** Return a vertical scale for values: linear or logarithmic, never of height zero. `y` is 0 at the top. */
export function vertical(values, height, { log = false, pad = 6, zero = false } = {}) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return null;
  if (zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
  const flat = low === high;
  if (flat) [low, high] = log ? [low / 3, high * 3] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const f = log ? Math.log10 : (v) => v;
  const [bottom, top] = [f(low), f(high)];
  return { low, high, log, flat, y: (v) => height - pad - ((f(v) - bottom) / (top - bottom)) * (height - 2 * pad) };
}
