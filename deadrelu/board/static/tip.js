// Tip: the small box beside the pointer that says what is under it, and the same for a screen reader.

import { fill, h, setStyle, setText } from "./dom.js";

/** Return `{element, show, hide, say}`. What is shown is `{title, rows: [[label, value, colour?]], note}`. */
export function createTip() {
  const box = h("div", { class: "tip", "aria-hidden": "true" });
  const live = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
  const element = h("div", {}, box, live);

  return {
    element,
    show(x, y, content) {
      fill(box, h("div", { class: "tip-title" }, content.title), rows(content), note(content));
      box.classList.add("on");
      const { width, height } = box.getBoundingClientRect();
      const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
      const top = Math.min(Math.max(8, y + 14), innerHeight - height - 8);
      setStyle(box, { left: `${Math.max(8, left)}px`, top: `${top}px` });
    },
    hide: () => box.classList.remove("on"),
    say: (content) => setText(live, spoken(content)),
  };
}

function rows(content) {
  const shown = (content.rows ?? []).map(([label, value, colour]) => [
    h("dt", {}, colour ? h("i", { class: "swatch", style: { background: colour } }) : null, label),
    h("dd", {}, value),
  ]);
  return shown.length ? h("dl", {}, ...shown.flat()) : null;
}

function note(content) {
  return content.note ? h("div", { class: "tip-note" }, content.note) : null;
}

function spoken(content) {
  const parts = (content.rows ?? []).map(([label, value]) => `${label}: ${value}`);
  return [content.title, ...parts, content.note].filter(Boolean).join("; ");
}
