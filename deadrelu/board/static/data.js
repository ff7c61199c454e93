// Data: what has been read of the run that is shown. Reading is asked for once and kept; what changed is told.

const KEPT_BYTES = 192 * 1024 * 1024;
const CHANNELS = ["rate", "grad", "bias"];

/**
 * Return what is read: `runs`, the `name` of the run that is shown and its `document`, `siteOf`, `codesOf`, `deathsOf`;
 * and `open`, `want`, `refresh` to read more. `changed(error)` is called when something arrived, or failed to.
 */
export function createData(source, changed) {
  let generation = 0; // answers to questions about a run that is no longer shown are dropped
  let sites = new Map();
  let cells = new Map();
  let deaths = null;
  const failed = new Map(); // name -> where it would stand; asked again by the next refresh, and not before
  const data = { runs: null, name: null, document: null, open, refresh, want, siteOf, codesOf, deathsOf };

  async function open(run) {
    const mine = ++generation;
    const document = await source.run(run);
    if (mine === generation) take(run, document);
  }

  function take(name, document) {
    [data.name, data.document] = [name, document];
    [sites, cells, deaths] = [new Map(), new Map(), null];
    failed.clear();
    changed();
  }

  /** Ask again for the runs, and for the one that is shown if it still trains. What is shown stays until the new data of the chosen site is there too. */
  async function refresh(site, channels) {
    const mine = generation;
    for (const [name, store] of failed) store.delete(name);
    failed.clear();
    const runs = await source.runs();
    const grown = String(runs) !== String(data.runs);
    data.runs = runs;
    const run = data.name;
    if (data.document.finished || !runs.includes(run)) return grown;
    const document = await source.run(run);
    if (mine !== generation) return false;
    if (stamp(document) === stamp(data.document)) return false;
    const known = document.sites.some((s) => s.site === site);
    const next = known ? await source.site(run, site) : null;
    const wanted = known ? channels.filter((c) => next.channels[c]) : [];
    const codes = await Promise.all(wanted.map((c) => source.cells(run, site, c)));
    if (mine !== generation) return false;
    generation++;
    take(run, document);
    if (known) sites.set(site, next);
    wanted.forEach((c, i) => cells.set(key(site, c), codes[i]));
    changed();
    return true;
  }

  /** Begin to read a site and the given channels of it, if they are not there yet. Rates are measured of every site. */
  function want(site, channels) {
    const run = data.name;
    load(sites, site, () => source.site(run, site), () => want(site, channels));
    const document = siteOf(site);
    for (const channel of channels) {
      if (document ? document.channels[channel] : channel === "rate") load(cells, key(site, channel), () => source.cells(run, site, channel));
    }
  }

  function load(store, name, ask, then) {
    if (store.has(name)) return;
    store.set(name, null); // asked for
    const mine = generation;
    ask().then((value) => {
      if (mine !== generation) return;
      store.set(name, value);
      if (store === cells) forget(name);
      then?.();
      changed();
    }).catch((error) => {
      if (mine !== generation) return;
      failed.set(name, store);
      changed(error);
    });
  }

  function forget(newest) {
    let bytes = [...cells.values()].reduce((sum, codes) => sum + (codes?.length ?? 0), 0);
    for (const [name, codes] of cells) {
      if (bytes <= KEPT_BYTES) return;
      if (!codes || name.startsWith(newest.slice(0, newest.lastIndexOf(" ")))) continue;
      bytes -= codes.length;
      cells.delete(name);
    }
  }

  function siteOf(site) {
    return sites.get(site) ?? null;
  }

  /** Return the codes of the channels that are there. A record that is still being written is left out. */
  function codesOf(site) {
    const document = siteOf(site);
    const found = {};
    for (const channel of CHANNELS) {
      const codes = document && cells.get(key(site, channel));
      if (codes && codes.length >= document.steps.length * document.units) found[channel] = codes;
    }
    return found;
  }

  /** Return the deaths of a unit, in order. */
  function deathsOf(site, unit) {
    if (!deaths) {
      deaths = new Map();
      for (const death of data.document.deaths) {
        const name = `${death.unit} ${death.site}`;
        if (!deaths.has(name)) deaths.set(name, []);
        deaths.get(name).push(death);
      }
    }
    return deaths.get(`${unit} ${site}`) ?? [];
  }

  return data;
}

const key = (site, channel) => `${site} ${channel}`;
const stamp = (d) => [d.steps.length, d.steps.at(-1), d.finished, d.events.length, d.deaths.length, d.sites.length].join();
