// Host: the few messages that TensorBoard and a plugin's frame exchange, over a channel of their own.

/** Call `reloaded` whenever TensorBoard has read its log folder again. Outside of TensorBoard nothing happens. */
export function onReload(reloaded) {
  if (window.parent === window) return;
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (message.isReply) return;
    if (message.type === "experimental.DataReloaded") reloaded();
    port1.postMessage(JSON.stringify({ type: message.type, id: message.id, payload: null, error: null, isReply: true }));
  });
  port1.start();
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
}
