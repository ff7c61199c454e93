// Empty: what to say where there is nothing to draw yet.

import { h } from "./dom.js";

const HOW = `with deadrelu.Monitor(model, optimizer, log_dir="runs/a"):
    train(...)`;

/** No run has been recorded. */
export function noRuns(live) {
  return [
    h("h1", {}, "No run has been recorded here yet."),
    h("p", {}, "Watch a training with one line, and it appears here:"),
    h("pre", {}, h("code", {}, document.createTextNode(HOW))),
    live ? h("p", { class: "quiet" }, "This page looks again by itself.") : null,
  ];
}

/** A run has begun, and nothing is in its record. */
export function noSteps(document) {
  const text = document.finished ? "This run ended before its first window was over: there are no steps to draw." :
    "The first window of this run is not over yet. This page looks again by itself.";
  return [h("p", { class: "quiet" }, text)];
}
