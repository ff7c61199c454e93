// Plot: a canvas on the shared step axis, with a column for names on its left and one for values on its right.
// It knows pointer, brush, keyboard and cursor; what is drawn, and what a place means, its owner tells.

import { h, setStyle } from "./dom.js";

const A_CLICK = 4; // a pointer that moved by less, in pixels, clicked

/**
 * Return a plot `{element, left, right, canvas, draw, overlay, place}`.
 *
 * options: `label` (for a screen reader), `describe(place)` -> content of the tip or null, `pick(place)` for a click or
 * Enter, `keys(event)` -> true if it took the key, `at()` -> y of the keyboard's cursor.
 * A place is `{step, x, y, width, height}`, x and y in CSS pixels of the canvas.
 */
export function createPlot(timeline, tip, options) {
  const canvas = h("canvas", { tabindex: "0", role: "application", "aria-roledescription": "plot", "aria-label": options.label });
  const cursor = h("div", { class: "cursor" });
  const shade = h("div", { class: "shade" });
  const brush = h("div", { class: "brush" });
  const body = h("div", { class: "plot-body" }, canvas, shade, brush, cursor);
  const left = h("div", { class: "plot-left" });
  const right = h("div", { class: "plot-right" });
  const element = h("div", { class: "plot" }, left, body, right);

  const plot = { element, left, right, canvas, body, draw, overlay, place };
  timeline.add(plot);

  /** Size the canvas, then call `painter(g, {width, height, scale, dpr})`; g is in CSS pixels. */
  function draw(height, painter) {
    const width = body.clientWidth;
    if (!width) return;
    const dpr = Math.min(devicePixelRatio || 1, 2);
    const [w, t] = [Math.max(1, Math.round(width * dpr)), Math.max(1, Math.round(height * dpr))];
    if (canvas.width !== w || canvas.height !== t) [canvas.width, canvas.height] = [w, t];
    setStyle(body, { height: `${height}px` });
    const g = canvas.getContext("2d");
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, w, t);
    g.setTransform(dpr, 0, 0, dpr, 0, 0);
    painter(g, { width, height, scale: timeline.scale(width), dpr });
    overlay();
  }

  function overlay() {
    const scale = timeline.scale(body.clientWidth);
    span(cursor, timeline.cursor === null ? null : [scale.x(timeline.cursor), scale.x(timeline.cursor)]);
    span(shade, timeline.mark && timeline.mark.map(scale.x));
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [Math.min(Math.max(event.clientX - box.left, 0), box.width), event.clientY - box.top];
    return { step: timeline.scale(box.width).step(x), x, y, width: box.width, height: box.height };
  }

  // -- pointer --------------------------------------------------------------------------------------------------

  let pressed = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { ...place(event), brushing: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = place(event);
    timeline.point(here.step);
    if (pressed && Math.abs(here.x - pressed.x) > A_CLICK) pressed.brushing = true;
    if (pressed?.brushing) {
      tip.hide();
      span(brush, [Math.min(pressed.x, here.x), Math.max(pressed.x, here.x)]);
      return;
    }
    const content = options.describe?.(here);
    if (content) tip.show(event.clientX, event.clientY, content);
    else tip.hide();
  });
  canvas.addEventListener("pointerup", (event) => {
    const here = place(event);
    const from = pressed;
    forget();
    if (from?.brushing) timeline.zoom([Math.min(from.step, here.step), Math.max(from.step, here.step)]);
    else if (from) options.pick?.(here);
  });
  canvas.addEventListener("pointercancel", forget);
  canvas.addEventListener("pointerleave", () => {
    if (pressed) return;
    timeline.point(null);
    tip.hide();
  });
  canvas.addEventListener("dblclick", () => timeline.zoom(null));

  function forget() {
    pressed = null;
    span(brush, null);
  }

  // -- keyboard -------------------------------------------------------------------------------------------------

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && pressed) forget();
    else if (!(options.keys?.(event) || walk(event, timeline))) {
      if (event.key !== "Enter" && event.key !== " ") return;
      options.pick?.(held());
    }
    event.preventDefault();
    tell();
  });
  canvas.addEventListener("blur", () => {
    timeline.point(null);
    tip.hide();
  });

  function held() {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const step = timeline.cursor ?? timeline.domain[1];
    return { step, x: timeline.scale(width).x(step), y: options.at?.() ?? height / 2, width, height };
  }

  function tell() {
    const here = held();
    const content = options.describe?.(here);
    if (!content) return;
    const box = canvas.getBoundingClientRect();
    tip.show(box.left + here.x, box.top + here.y, content);
    tip.say(content);
  }

  return plot;
}

/** Move or zoom with a key; returns whether the key was one of those. */
export function walk(event, timeline) {
  const far = event.shiftKey ? 10 : 1;
  const moves = {
    ArrowLeft: () => timeline.walk(-far),
    ArrowRight: () => timeline.walk(far),
    Home: () => timeline.point(timeline.domain[0]),
    End: () => timeline.point(timeline.domain[1]),
    "+": () => timeline.zoomBy(0.5),
    "=": () => timeline.zoomBy(0.5),
    "-": () => timeline.zoomBy(2),
    0: () => timeline.zoom(null),
    Escape: () => timeline.zoom(null),
  };
  if (!Object.hasOwn(moves, event.key)) return false;
  moves[event.key]();
  return true;
}

function span(element, range) {
  element.classList.toggle("on", Boolean(range));
  if (range) setStyle(element, { left: `${range[0]}px`, width: `${Math.max(1, range[1] - range[0])}px` });
}
