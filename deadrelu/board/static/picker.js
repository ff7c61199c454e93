// Picker: the name of the page, the run that is shown, and how far that run is.

import { fill, h, set, setText, watcher } from "./dom.js";
import { ago, count } from "./format.js";

const PATIENCE = 300, WINDOWS = 6; // seconds, and windows, after which a run that says nothing no longer trains

/** Return `{element, update}`; `choose(run)` is called when another run is picked. */
export function createPicker(choose) {
  const list = h("select", { "aria-label": "Run", on: { change: () => choose(list.value) } });
  const state = h("span", { class: "progress" });
  const note = h("span", { class: "thinned" });
  const element = h("header", { class: "top" }, h("span", { class: "brand" }, h("i", { class: "brand-mark", "aria-hidden": "true" }), "Dead ReLU"),
    h("label", { class: "run" }, h("span", {}, "run"), list), state, note);
  const changed = watcher();
  return {
    element,
    update(runs, document, run) {
      set(element.querySelector(".run"), "hidden", !runs.length);
      if (changed(runs.join("\0"))) fill(list, ...runs.map((run) => h("option", { value: run }, run)));
      if (run !== null) list.value = run;
      set(list, "title", run);
      setText(state, document ? progress(document) : "");
      set(state, "data-live", document && !document.finished && silence(document) === null);
      setText(note, document?.thinned ?? "");
    },
  };
}

// How far a run is.
function progress(document) {
  const last = document.steps.at(-1);
  if (last === undefined) return document.finished ? "finished" : "waiting for the first window";
  if (document.finished) return `finished at step ${count(last)}`;
  const seconds = silence(document);
  return seconds === null ? `training, step ${count(last)}` : `not finished: step ${count(last)}, last heard of ${ago(seconds)}`;
}

// For how many seconds nothing came, where that is longer than the run ever needs; else null.
function silence({ heard }) {
  const seconds = heard ? Date.now() / 1000 - heard.at : 0;
  return seconds > Math.max(PATIENCE, WINDOWS * (heard?.every ?? 0)) ? seconds : null;
}
