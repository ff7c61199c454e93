// File: the page that stands alone. Everything is written into it: it asks no server for anything.

import { start } from "./app.js";
import { showReport } from "./report.js";
import { embeddedSource, json } from "./source.js";

/** Show what is packed into the element `deadrelu-data`: recorded runs, or one report. */
export async function show() {
  const root = document.getElementById("deadrelu");
  const data = JSON.parse(document.getElementById("deadrelu-data").textContent);
  if (data.report) showReport(root, await json(data.report));
  else await start(root, embeddedSource(data));
}
