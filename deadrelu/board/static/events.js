// Events: what happened, one line each, with what to do about it; and the same as files.

import { csv, save } from "./download.js";
import { fill, h, set, setText, watcher } from "./dom.js";
import { causeWords, count, many, number } from "./format.js";
import { causeColour } from "./palette.js";
import { isDark } from "./theme.js";

const SHOWN = 50;
const EVENT_COLUMNS = ["kind", "site", "first_step", "last_step", "count", "cause", "lr", "safe_lr", "saved", "remedy", "units"];
const DEATH_COLUMNS = ["site", "unit", "last_fired", "killed_by_step", "confirmed", "revived", "born_dead", "resolution", "cause",
  "cause_evidence", "parameter", "origin", "share_weight", "share_decay", "share_bias", "share_input", "margin_before", "margin_after",
  "max_z_before", "max_z_after", "kick", "lr", "safe_lr"];
const VERBS = { death: "died", revival: "came back", risk: "at risk" };

/** Return the rows of the CSV of events. */
export function eventRows(document) {
  return document.events.map((e) => ({ ...e, first_step: e.steps[0], last_step: e.steps[1] }));
}

/** Return the rows of the CSV of deaths. */
export function deathRows(document) {
  const shares = (d) => Object.fromEntries(["weight", "decay", "bias", "input"].map((part) => [`share_${part}`, d.shares?.[part]]));
  return document.deaths.map((d) => ({ ...d, ...shares(d) }));
}

/** Return `{element, update}`; `jump({site, steps})` is called for an event that is clicked. */
export function createEvents({ state, jump }) {
  let document = null, all = false, sort = { by: "step", down: false };
  const title = h("h2", {}, "Events");
  const hint = h("p", {});
  const body = h("tbody");
  const more = h("button", { class: "chip", type: "button", on: { click: () => { all = true; refresh(); } } });
  const heads = [["step", "Steps"], ["site", "Layer"], ["count", "What"], ["cause", "Cause"], [null, "What to do"]].map(([by, words]) =>
    h("th", { scope: "col" }, by ? h("button", { type: "button", on: { click: () => order(by) } }, words) : words));
  const table = h("table", { class: "events" }, h("thead", {}, h("tr", {}, ...heads)), body);
  const name = () => `deadrelu-${document.run}`;
  const files = h("div", { class: "tools" },
    file("Events as CSV", () => save(`${name()}-events.csv`, csv(eventRows(document), EVENT_COLUMNS), "text/csv")),
    file("Deaths as CSV", () => save(`${name()}-deaths.csv`, csv(deathRows(document), DEATH_COLUMNS), "text/csv")),
    file("Everything as JSON", () => save(`${name()}.json`, JSON.stringify(document, null, 1), "application/json")));
  const element = h("section", { class: "panel", "aria-label": "Events" },
    h("header", { class: "panel-head" }, title, hint, files), h("div", { class: "table-room" }, table), more);
  const changed = watcher();

  function order(by) {
    sort = { by, down: sort.by === by ? !sort.down : by === "count" };
    refresh();
  }

  function refresh() {
    const { cause } = state.get();
    const found = sorted(document.events.filter((e) => cause === null || e.cause === cause), sort);
    const shown = all ? found : found.slice(0, SHOWN);
    setText(hint, summary(document.events, found, cause));
    set(table, "hidden", !found.length);
    fill(body, ...shown.map((event) => row(event, jump)));
    set(more, "hidden", shown.length === found.length);
    setText(more, `Show all ${count(found.length)} events`);
    ["step", "site", "count", "cause"].forEach((by, i) =>
      set(heads[i], "aria-sort", sort.by === by ? (sort.down ? "descending" : "ascending") : null));
  }

  return {
    element,
    update(model) {
      if (!changed(model.document, state.get().cause, isDark())) return;
      document = model.document;
      refresh();
    },
  };
}

function file(words, click) {
  return h("button", { class: "chip", type: "button", on: { click } }, words);
}

function summary(events, found, cause) {
  if (!events.length) return "Nothing happened that needs you.";
  const only = cause === null ? "" : `, those caused by ${causeWords(cause)} only`;
  return `${many(found.length, "event")} of this run${only}. Choose one to see it in the plots above.`;
}

function sorted(events, { by, down }) {
  const keys = { step: (e) => e.steps[0], site: (e) => e.site, count: (e) => e.count, cause: (e) => causeWords(e.cause) };
  const key = keys[by];
  const found = [...events].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
  return down ? found.reverse() : found;
}

function row(event, jump) {
  const [first, last] = event.steps;
  const steps = first === last ? count(first) : `${count(first)} – ${count(last)}`;
  const go = h("button", { class: "jump", type: "button", on: { click: () => jump(event) } }, steps);
  const cause = event.cause === null ? null : [h("i", { class: "swatch", style: { background: causeColour(event.cause, isDark()) } }), causeWords(event.cause)];
  return h("tr", { class: event.kind }, h("td", { class: "steps" }, go), h("td", { class: "name", title: event.site }, event.site),
    h("td", { class: "what" }, `${many(event.count, "unit")} ${VERBS[event.kind] ?? event.kind}`), h("td", {}, ...(cause ?? [])),
    h("td", { class: "remedy" }, event.remedy ?? "", spared(event)));
}

// What a lower learning rate would have done, where the remedy does not say it.
function spared(event) {
  if (event.safe_lr === null || event.safe_lr === undefined || (event.remedy ?? "").includes("would be alive")) return null;
  const whom = event.saved === null ? "them" : `${count(event.saved)} of ${count(event.count)}`;
  return h("div", { class: "quiet" }, `A learning rate of ${number(event.safe_lr)} or less would have spared ${whom}.`);
}
