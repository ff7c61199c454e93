// Address: the page's own URL fragment, or TensorBoard's where the page is a tab in it (`#deadrelu&run=...`).

const TAB = "#deadrelu";

/** Return `{read, write}` of the fragment's text, without its leading `#`. */
export function pageAddress() {
  return {
    read: () => location.hash.slice(1),
    write: (text) => replace(window, text ? `#${text}` : "#"),
  };
}

/** The same inside of TensorBoard: the frame is of the same origin, so that the host's fragment can be read. */
export function tabAddress() {
  return {
    read() {
      const hash = hostHash();
      return hash.startsWith(TAB) ? hash.slice(TAB.length).replace(/^&/, "") : "";
    },
    write(text) {
      if (hostHash().split("&")[0] === TAB) replace(window.parent, text ? `${TAB}&${text}` : TAB);
    },
  };
}

function hostHash() {
  try {
    return window.parent.location.hash;
  } catch {
    return ""; // a host of another origin keeps its address to itself
  }
}

function replace(target, hash) {
  try {
    const { pathname, search } = target.location;
    if (target.location.hash !== hash) target.history.replaceState(target.history.state, "", `${pathname}${search}${hash}`);
  } catch {
    // a browser that limits how often an address may change: the next change writes it
  }
}
