// Verdict: what happened, in words, and what to change. A click on a sentence goes to where it happened.

import { fill, h, set, watcher } from "./dom.js";
import { many } from "./format.js";

const SHOWN = 4; // sentences, before the rest is asked for

const DEFINITION = "A dead unit gives the same output for every input and gets no gradient, so training rarely brings it back.";

/** Return `{element, update}`; `jump({site, steps})` is called for a sentence that is clicked. */
export function createVerdict(jump) {
  const element = h("section", { class: "verdict", "aria-label": "Verdict" });
  const changed = watcher();
  return {
    element,
    update({ document }) {
      if (!changed(document)) return;
      set(element, "data-tone", document.verdict.tone);
      fill(element, ...parts(document, jump));
    },
  };
}

function parts(document, jump) {
  const { headline, sentences } = document.verdict;
  const of = (role) => sentences.filter((s) => (s.role ?? "happened") === role);
  const change = of("change");
  return [
    h("h1", {}, ...whole(headline)),
    h("p", { class: "definition" }, ...of("meaning").map((s) => `${s.text} `), defined(document, of("meaning"))),
    h("div", { class: "verdict-columns" },
      list("What happened", of("happened"), jump),
      change.length ? list("What to change", change, jump, "change") : null),
    sure(document, [...of("sure"), ...of("unseen")]),
  ];
}

// A step and its number stay on one line.
function whole(text) {
  return text.split(/(steps? [\d,]+(?: to [\d,]+)?)/).map((part, i) => (i % 2 ? h("span", { class: "whole" }, part) : part));
}

// What a dead unit is, where there are any and nobody has said it yet.
function defined(document, sentences) {
  const died = document.deaths.length > 0 || document.dead > 0;
  return died && !sentences.some((s) => s.text.startsWith("A dead unit")) ? DEFINITION : null;
}

function list(title, sentences, jump, kind = "") {
  if (!sentences.length) return null;
  const lines = sentences.map((s) => h("li", {}, sentence(s, jump)));
  const first = sentences.length > SHOWN + 1 ? SHOWN : sentences.length;
  const rest = lines.slice(first);
  const more = rest.length ? h("details", { class: "more" }, h("summary", {}, `and ${rest.length} more`), h("ul", {}, ...rest)) : null;
  return h("div", { class: `verdict-list ${kind}` }, h("h2", {}, title), h("ul", {}, ...lines.slice(0, first)), more);
}

function sentence(said, jump) {
  if (!jump || (said.site === null && said.steps === null)) return h("span", {}, said.text);
  return h("button", { class: "jump", type: "button", on: { click: () => jump(said) } }, said.text, h("span", { class: "arrow", "aria-hidden": "true" }, "→"));
}

function sure(document, sentences) {
  const facts = [document.samples ? `${many(document.samples, "sample")} seen` : null, document.thinned ?? null].filter(Boolean);
  if (!sentences.length && !facts.length) return null;
  return h("details", { class: "sure" }, h("summary", {}, "How sure is this?"),
    h("ul", {}, ...sentences.map((s) => h("li", {}, s.text)), ...facts.map((fact) => h("li", {}, `${fact}.`))));
}
