// Elements: making them, and nothing else. Text goes in as text, never as markup, so that no name can become code.

// What is not printable (control characters, marks that turn text round, zero-width and unpaired ones) is written as its
// escape: a name must not be able to hide or to reorder what stands around it.
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu;
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const SPOKEN = new Set(["title", "aria-label", "aria-description"]);

/** Return a text in which every character can be seen. */
export function visible(text) {
  return String(text).replace(UNPRINTABLE, (letter) => {
    if (letter in NAMED) return NAMED[letter];
    const code = letter.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

const content = (children) =>
  children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : visible(child)));

/** Make an element: `h("button", {class: "chip", on: {click}}, "text", child)`. Props are attributes, save `on` and `style`. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === "style") setStyle(element, value);
    else set(element, name, value);
  }
  element.append(...content(children));
  return element;
}

/** Set an attribute; null and false take it away, true leaves it empty. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : SPOKEN.has(name) ? visible(value) : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Set styles through the CSSOM, which a Content-Security-Policy allows where it forbids style attributes. */
export function setStyle(element, styles) {
  for (const [name, value] of Object.entries(styles)) element.style.setProperty(name, value);
}

/** Replace the text of an element if it differs, so that a screen reader is not told the same twice. */
export function setText(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...content(children));
  return element;
}

/** Return a function that says whether the list of values differs from that of the call before. */
export function watcher() {
  let before = null;
  return (...values) => {
    const same = before !== null && before.length === values.length && values.every((v, i) => Object.is(v, before[i]));
    before = values;
    return !same;
  };
}
