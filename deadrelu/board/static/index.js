// Index: what TensorBoard imports into the tab's frame. It shows the runs that the plugin serves.

import { tabAddress } from "./address.js";
import { h } from "./dom.js";
import { onReload } from "./host.js";
import { ahead, httpSource } from "./source.js";
import { decode } from "./state.js";

/** TensorBoard's contract for an ES module plugin. */
export async function render() {
  const address = tabAddress();
  const source = ahead(httpSource(), decode(address.read()).run);
  const app = import("./app.js"); // while the data is on its way
  const style = h("link", { rel: "stylesheet", href: new URL("./style.css", import.meta.url).href });
  const styled = new Promise((done) => { style.onload = style.onerror = done; });
  const root = h("div", { id: "deadrelu" });
  document.documentElement.lang = "en";
  document.head.append(style);
  document.body.append(root);
  await styled; // plots are measured: they need their columns
  const { start } = await app;
  const page = await start(root, source, address);
  onReload(() => page.refresh());
}
