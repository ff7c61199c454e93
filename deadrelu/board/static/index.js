// Index: what TensorBoard imports into the tab's frame. It shows the runs that the plugin serves.

import { tabAddress } from "./address.js";
import { start } from "./app.js";
import { h } from "./dom.js";
import { onReload } from "./host.js";
import { httpSource } from "./source.js";

/** TensorBoard's contract for an ES module plugin. */
export async function render() {
  const style = h("link", { rel: "stylesheet", href: new URL("./style.css", import.meta.url).href });
  const styled = new Promise((done) => { style.onload = style.onerror = done; });
  const root = h("div", { id: "deadrelu" });
  document.documentElement.lang = "en";
  document.head.append(style);
  document.body.append(root);
  await styled; // plots are measured: they need their columns
  const page = await start(root, httpSource(), tabAddress());
  onReload(() => page.refresh());
}
