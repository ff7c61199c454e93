// Theme: light or dark, as TensorBoard is where the page is a tab in it, else as the reader's system is.

/** Set `data-theme` on the page now and whenever it changes, and call `changed` then. */
export function followTheme(root, changed) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = (hostIsDark() ?? system.matches) ? "dark" : "light";
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    changed();
  };
  system.addEventListener("change", apply);
  const host = hostBody();
  if (host) new MutationObserver(apply).observe(host, { attributes: true, attributeFilter: ["class"] });
  apply();
}

/** Return whether the page is dark now. */
export function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

/** Return the value of a colour of style.css, such as `--ink`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function hostIsDark() {
  const body = hostBody();
  return body ? body.classList.contains("dark-mode") : null;
}

function hostBody() {
  try {
    return window.parent !== window ? window.parent.document.body : null;
  } catch {
    return null;
  }
}
