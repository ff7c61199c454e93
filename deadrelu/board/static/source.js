// Source: where the documents come from - a server, or the page itself. Both answer the same four questions.

/** Return a source that asks a server beside the page; `live` runs are asked for again. */
export function httpSource(base = ".") {
  const get = async (path, query) => {
    const text = new URLSearchParams(query).toString();
    const answer = await fetch(`${base}/${path}${text ? `?${text}` : ""}`);
    if (!answer.ok) throw new Error(`the server answered ${answer.status} (${answer.statusText || "no reason given"}) to ${path}`);
    return answer;
  };
  return {
    live: true,
    runs: async () => (await (await get("runs")).json()).runs,
    run: async (run) => (await get("run", { run })).json(),
    site: async (run, site) => (await get("site", { run, site })).json(),
    cells: async (run, site, channel) => new Uint8Array(await (await get("cells", { run, site, channel })).arrayBuffer()),
  };
}

/** Return the run that is shown: the one that is wanted, if it is there, else the last. */
export function shown(runs, wanted) {
  return runs.includes(wanted) ? wanted : runs.at(-1);
}

/** Return the source with its first answers asked for at once: the runs, and the one that will be shown. */
export function ahead(source, wanted) {
  const runs = source.runs();
  const run = runs.then((names) => names.length && source.run(shown(names, wanted)));
  run.catch(() => {}); // whoever asks is told
  const first = new Map([["runs", runs]]);
  runs.then((names) => first.set(`run ${shown(names, wanted)}`, run), () => {});
  const take = (name, ask) => {
    const asked = first.get(name);
    first.delete(name);
    return asked ?? ask();
  };
  return { ...source, runs: () => take("runs", source.runs), run: (name) => take(`run ${name}`, () => source.run(name)) };
}

/** Return a source that reads what is written into the page: `{runs: [{run, document, sites: [{site, document, cells}]}]}`. */
export function embeddedSource(data) {
  const found = (run) => data.runs.find((r) => r.run === run) ?? missing(`run ${run}`);
  const inside = (run, site) => found(run).sites.find((s) => s.site === site) ?? missing(`site ${site}`);
  return {
    live: false,
    runs: async () => data.runs.map((r) => r.run),
    run: async (run) => json(found(run).document),
    site: async (run, site) => json(inside(run, site).document),
    async cells(run, site, channel) {
      const packed = inside(run, site).cells[channel] ?? missing(`channel ${channel}`);
      return upright(await unpack(packed.packed), packed.units, packed.differences);
    },
  };
}

function missing(what) {
  throw new Error(`this file holds no ${what}`);
}

/** Return the JSON that is packed in a text: base64 of gzip. */
export async function json(packed) {
  return JSON.parse(new TextDecoder().decode(await unpack(packed)));
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Packed are, unit by unit, the codes of all records, or what changed from record to record modulo 256.
function upright(packed, units, differences) {
  const records = units ? packed.length / units : 0;
  const codes = new Uint8Array(packed.length);
  for (let unit = 0; unit < units; unit++) {
    let code = 0;
    for (let record = 0; record < records; record++) {
      const next = packed[unit * records + record];
      code = differences ? (code + next) & 255 : next;
      codes[record * units + unit] = code;
    }
  }
  return codes;
}
