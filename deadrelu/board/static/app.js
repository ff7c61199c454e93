// App: puts the page together, reads what the state asks for, and lets every part draw what changed.

import { pageAddress } from "./address.js";
import { createAxis } from "./axis.js";
import { createCurves } from "./curves.js";
import { createData } from "./data.js";
import { fill, h, set, setText } from "./dom.js";
import { createDrawer } from "./drawer.js";
import { createEvents } from "./events.js";
import { createHeatmap } from "./heatmap.js";
import { follow } from "./live.js";
import { createPicker } from "./picker.js";
import { shown } from "./source.js";
import { createState, decode, encode } from "./state.js";
import { createStrip } from "./strip.js";
import { followTheme } from "./theme.js";
import { createTimeline } from "./timeline.js";
import { createTip } from "./tip.js";
import { createTrack } from "./track.js";
import { createVerdict } from "./verdict.js";
import { noRuns, noSteps } from "./empty.js";

const CHANNELS = ["rate", "grad", "bias"];

/** Show the runs of a source in `root`. Returns `{refresh}`, which asks the source again. */
export async function start(root, source, address = pageAddress()) {
  const state = createState(decode(address.read()));
  const data = createData(source, (error) => { failed(error); schedule(); });
  const timeline = createTimeline((range) => { timeline.shade(null); state.set({ range }); });
  const tip = createTip();
  const shared = { state, timeline, tip, jump };

  const picker = createPicker((run) => state.set({ run, site: null, unit: null, range: null, cause: null }));
  const heatmap = createHeatmap(shared);
  const plots = [createAxis(shared), createStrip(shared), heatmap, createDrawer(shared), createTrack(shared), createCurves(shared)];
  const parts = [createVerdict(jump), ...plots, createEvents(shared)];
  const trouble = h("div", { class: "trouble", role: "alert", hidden: true });
  const empty = h("div", { class: "empty" });
  const charts = h("div", { class: "charts" }, ...plots.map((part) => part.element));
  const page = h("main", { class: "page" }, picker.element, trouble, empty, parts[0].element, charts, parts.at(-1).element);
  root.classList.add("deadrelu");
  fill(root, page, tip.element);

  let shownRun = null, frame = 0;
  followTheme(root, schedule);
  new ResizeObserver(schedule).observe(page);
  state.subscribe(() => { address.write(encode(state.get())); follower(); schedule(); });
  addEventListener("hashchange", () => state.set({ ...createState().get(), run: state.get().run, ...decode(address.read()) }));

  // -- reading --------------------------------------------------------------------------------------------------

  async function load() {
    try {
      data.runs = await source.runs();
      failed(null);
    } catch (error) {
      failed(error);
    }
    follower();
    schedule();
  }

  // Opens the run that the state names, or the last one if it names none that there is.
  function follower() {
    if (!data.runs?.length) return;
    const run = shown(data.runs, state.get().run);
    if (run === shownRun) return;
    shownRun = run;
    root.dataset.state = "reading";
    state.set({ run });
    data.open(run).then(() => failed(null), (error) => { shownRun = null; failed(error); });
  }

  function settle(document) {
    const { site, unit, cause } = state.get();
    if (cause !== null && !Object.hasOwn(document.causes, cause)) state.set({ cause: null });
    const found = document.sites.find((s) => s.site === site);
    if (!found && document.sites.length) state.set({ site: worst(document).site, unit: site === null ? unit : null });
    const units = document.sites.find((s) => s.site === state.get().site)?.units ?? 0;
    if (state.get().unit >= units) state.set({ unit: null });
  }

  async function refresh() {
    if (!source.live) return false;
    try {
      const there = data.document !== null && data.name === shownRun;
      const more = there ? await data.refresh(state.get().site, wanted()) : (await load(), true);
      failed(null);
      schedule();
      return more;
    } catch (error) {
      failed(error);
      return false;
    }
  }

  const wanted = () => (state.get().unit === null ? [state.get().channel] : CHANNELS);

  function failed(error) {
    set(trouble, "hidden", !error);
    if (error) setText(trouble, `The run cannot be read: ${error.message}.${source.live ? " Trying again." : ""}`);
  }

  // -- drawing --------------------------------------------------------------------------------------------------

  function schedule() {
    frame ||= requestAnimationFrame(() => { frame = 0; paint(); });
  }

  function paint() {
    const { document, runs } = data;
    const ready = Boolean(document?.steps.length);
    picker.update(runs ?? [], document, shownRun);
    if (runs) fill(empty, ...(!runs.length ? noRuns(source.live) : document && !ready ? noSteps(document) : []));
    set(parts[0].element, "hidden", !document || !runs?.length);
    set(charts, "hidden", !ready);
    set(parts.at(-1).element, "hidden", !ready);
    root.dataset.state = runs && !runs.length ? "empty" : document && !ready ? "empty" : "reading";
    if (!document || data.name !== shownRun) return; // the run that was chosen is on its way
    settle(document);
    const { site, channel, range } = state.get();
    timeline.use(document.steps, range);
    if (ready && site !== null) data.want(site, wanted());
    const codes = site === null ? {} : data.codesOf(site);
    const model = { document, site: site === null ? null : data.siteOf(site), codes, cells: codes[channel] ?? null, deathsOf: data.deathsOf };
    if (model.site && !model.site.channels[channel]) state.set({ channel: CHANNELS.find((c) => model.site.channels[c]) ?? channel });
    for (const part of ready ? parts : parts.slice(0, 1)) part.update(model);
    if (!document.sites.length) root.dataset.state = "shown";
    if (model.site && wanted().every((name) => codes[name] || !model.site.channels[name])) root.dataset.state = "shown";
  }

  /** Go to where something happened: its layer, its steps with some room around them. */
  function jump({ site, steps }) {
    const { document } = data;
    const there = document.sites.some((s) => s.site === site);
    const [first, last] = timeline.extent;
    const room = steps && Math.max((last - first) * 0.06, (steps[1] - steps[0]) * 1.5, 2);
    const range = steps && [Math.max(first, Math.floor(steps[0] - room)), Math.min(last, Math.ceil(steps[1] + room))];
    state.set({ ...(there ? { site, unit: null } : {}), ...(steps ? { range } : {}) });
    timeline.shade(steps && [steps[0], steps[1] + 1]);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    charts.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  const now = follow(refresh, () => source.live);
  await load();
  return { refresh: () => (source.live ? now() : undefined) };
}

/** Return the site that lost the largest part of its units; the first if none lost any. */
function worst(document) {
  const dead = (site) => site.dead_fraction.filter((v) => v !== null).at(-1) ?? -1;
  return document.sites.reduce((a, b) => (dead(b) > dead(a) ? b : a));
}
