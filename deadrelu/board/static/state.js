// State: what the reader of the page chose. It is small, it lives in the URL, and whoever draws is told of changes.

/** What can be chosen, and what is chosen at first. `range` and `mark` are [from, to] in steps. */
const FIRST = { run: null, site: null, channel: "rate", order: "death", unit: null, range: null, cause: null };
const CHANNELS = ["rate", "grad", "bias"];
const ORDERS = ["death", "index"];

/** Return a store: `get()`, `set(patch)`, `subscribe(listener)`. */
export function createState(initial = {}) {
  let now = { ...FIRST, ...initial };
  const listeners = new Set();
  return {
    get: () => now,
    set(patch) {
      const next = { ...now, ...patch };
      if (Object.keys(next).every((key) => same(next[key], now[key]))) return;
      now = next;
      for (const listener of listeners) listener(now);
    },
    subscribe(listener) {
      listeners.add(listener);
    },
  };
}

function same(a, b) {
  return Array.isArray(a) && Array.isArray(b) ? a.length === b.length && a.every((v, i) => v === b[i]) : a === b;
}

/** Write what was chosen as the text of a URL's fragment. What is as at first is left out. */
export function encode(state) {
  const written = new URLSearchParams();
  for (const key of Object.keys(FIRST)) {
    if (state[key] === null || same(state[key], FIRST[key])) continue;
    written.set(key, Array.isArray(state[key]) ? state[key].map((v) => Math.round(v)).join("-") : state[key]);
  }
  return written.toString();
}

/** Read the text of a URL's fragment. Whatever makes no sense is dropped: anybody can write a link. */
export function decode(text) {
  const read = new URLSearchParams(text);
  const found = {};
  for (const key of ["run", "site", "cause"]) if (read.get(key)) found[key] = read.get(key);
  if (CHANNELS.includes(read.get("channel"))) found.channel = read.get("channel");
  if (ORDERS.includes(read.get("order"))) found.order = read.get("order");
  if (/^\d{1,9}$/.test(read.get("unit") ?? "")) found.unit = Number(read.get("unit"));
  const range = /^(\d{1,15})-(\d{1,15})$/.exec(read.get("range") ?? "");
  if (range && Number(range[1]) < Number(range[2])) found.range = [Number(range[1]), Number(range[2])];
  return found;
}
