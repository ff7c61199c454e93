// Live: asks again for a run that still trains, often while it grows, seldom while it rests, never while nobody looks.

const OFTEN = 4_000, SELDOM = 30_000; // milliseconds
const REST = 12; // times what an answer took: a large run does not keep its server busy

/** Call `ask()` (-> whether anything was new) again and again while `wanted()`; returns `now()`, which asks at once. */
export function follow(ask, wanted) {
  let wait = OFTEN, timer = null, busy = false;

  async function now() {
    clearTimeout(timer);
    if (!busy && wanted() && !document.hidden) {
      busy = true;
      const began = performance.now();
      try {
        wait = (await ask()) ? OFTEN : Math.min(SELDOM, wait * 1.5);
      } finally {
        busy = false;
        wait = Math.max(wait, REST * (performance.now() - began));
      }
    }
    clearTimeout(timer);
    timer = setTimeout(now, wait);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) now();
  });
  timer = setTimeout(now, wait);
  return now;
}
