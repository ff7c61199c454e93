// Palette: the colours of data. Each ramp grows evenly in lightness, so that it reads without colour vision; dead is
// black and stands outside of every ramp, and what was not measured is hatched.

// Light end to dark end would make "rare" look like "dead": the ramps stop well before black.
const RAMPS = {
  rate: [[49, 91, 158], [38, 128, 176], [64, 164, 178], [124, 197, 172], [190, 224, 178], [246, 243, 199]],
  grad: [[112, 60, 138], [158, 74, 146], [202, 98, 138], [230, 137, 133], [244, 182, 147], [251, 228, 189]],
  bias: [[191, 91, 23], [226, 145, 79], [245, 203, 160], [243, 241, 236], [170, 199, 226], [93, 147, 199], [36, 98, 163]],
};

// Away from the page's background means dead, in either theme.
const HARM = {
  light: [[238, 238, 233], [250, 213, 150], [240, 152, 72], [207, 83, 44], [143, 34, 32], [74, 10, 24]],
  dark: [[52, 55, 62], [105, 47, 46], [168, 62, 39], [221, 108, 48], [244, 167, 92], [253, 226, 170]],
};

// Okabe and Ito's set, told apart by every kind of colour vision; the two greys are not causes that one can act on.
const CAUSE_COLOURS = {
  light: {
    learning_rate: "#d55e00", bias_drift: "#0072b2", weight_drift: "#56b4e9", weight_decay: "#009e73",
    input_shift: "#cc79a7", upstream_death: "#e69f00", born_dead: "#4a4d55", non_finite: "#d9cb1e", unknown: "#a3a6ad",
  },
  dark: {
    learning_rate: "#e8702a", bias_drift: "#2f94d6", weight_drift: "#7cc8f2", weight_decay: "#1fb78d",
    input_shift: "#d98fb8", upstream_death: "#f0b22e", born_dead: "#c9ccd3", non_finite: "#f0e442", unknown: "#82868f",
  },
};

export const DEAD = 0;
export const UNSEEN = 255;

const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;
export const BLACK = pack([0, 0, 0]);

function mix(stops, place) {
  const at = Math.min(1, Math.max(0, place)) * (stops.length - 1);
  const left = Math.min(stops.length - 2, Math.floor(at));
  return stops[left].map((v, i) => Math.round(v + (at - left) * (stops[left + 1][i] - v)));
}

/** Return 256 packed colours (ABGR) of a channel's codes; 0 is black, 255 is of no use (it is hatched). */
export function codeColours(name, channel) {
  const found = new Uint32Array(256);
  for (let code = 1; code < 255; code++) found[code] = pack(mix(RAMPS[name], placeOf(name, channel, (code - 1) / 253)));
  found[DEAD] = BLACK;
  return found;
}

// The middle of the bias ramp is zero, wherever zero lies between low and high.
function placeOf(name, channel, place) {
  if (name !== "bias" || channel.scale === "log") return place;
  const value = channel.low + place * (channel.high - channel.low);
  return 0.5 + (0.5 * value) / (Math.max(Math.abs(channel.low), Math.abs(channel.high)) || 1);
}

/** Return the CSS gradient that a legend of a channel shows. */
export function legendGradient(name, channel) {
  const stops = [...Array(12).keys()].map((i) => css(mix(RAMPS[name], placeOf(name, channel, i / 11))));
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** Return the colour of a dead fraction. One dead unit in a thousand already differs from none. */
export function harmColour(fraction, dark) {
  const stops = HARM[dark ? "dark" : "light"];
  return css(fraction > 0 ? mix(stops, 0.15 + 0.85 * fraction) : stops[0]);
}

/** Return the CSS gradient that a legend of dead fractions shows. */
export function harmGradient(dark) {
  return `linear-gradient(to right, ${[0, 0.001, 0.2, 0.4, 0.6, 0.8, 1].map((f) => harmColour(f, dark)).join(", ")})`;
}

/** Return the colour of a cause. */
export function causeColour(cause, dark) {
  const known = CAUSE_COLOURS[dark ? "dark" : "light"];
  return Object.hasOwn(known, cause) ? known[cause] : known.unknown;
}

/** Return the two packed colours of the hatching of what was not measured. */
export function hatchColours(dark) {
  return dark ? [pack([44, 47, 53]), pack([70, 74, 82])] : [pack([240, 240, 236]), pack([210, 211, 207])];
}

/** Return whether a pixel lies on a line of the hatching. */
export function onHatch(x, y) {
  return (x + y) % 8 < 2;
}

/** Fill a rectangle of a canvas with the hatching. */
export function hatch(g, x, y, width, height, dark) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const t = tile.getContext("2d");
  const image = t.createImageData(8, 8);
  const pixels = new Uint32Array(image.data.buffer);
  const [ground, line] = hatchColours(dark);
  for (let i = 0; i < 64; i++) pixels[i] = onHatch(i % 8, i >> 3) ? line : ground;
  t.putImageData(image, 0, 0);
  g.fillStyle = g.createPattern(tile, "repeat");
  g.fillRect(x, y, width, height);
}
