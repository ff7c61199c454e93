// Controls: a choice of a few, as buttons in a row.

import { h, set } from "./dom.js";

/** Return `{element, show}`; options are [value, words], `choose(value)` is called on a click, `show(value, allowed)` marks. */
export function createChoice(label, options, choose) {
  const buttons = options.map(([value, words]) => [value, h("button", { type: "button", on: { click: () => choose(value) } }, words)]);
  const element = h("div", { class: "choice", role: "group", "aria-label": label }, h("span", { class: "choice-label" }, label),
    h("span", { class: "choice-set" }, ...buttons.map(([, button]) => button)));
  return {
    element,
    show(value, allowed = () => true) {
      for (const [name, button] of buttons) {
        set(button, "aria-pressed", name === value ? "true" : "false");
        set(button, "disabled", !allowed(name));
        set(button, "title", allowed(name) ? null : "not recorded in this run");
      }
    },
  };
}
