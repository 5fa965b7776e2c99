// @ts-check
// How this browser likes to look at images. Nothing of it is in the notebook, and nothing of it changes an image.

export const SIZES = [64, 84, 104, 132, 168, 220, 300];  // pixels a side of a tile
/** Contrast aids, each with what it says while it is on. @type {Record<string, string>} */
export const AIDS = { "": "", contrast: "more contrast", bright: "brighter", dark: "darker", invert: "inverted" };
/** How soon the same key again is a slip of the finger, in ms. */
export const GUARDS = [0, 100, 200, 300];
const KEY = "baal-widgets:view";

export class Prefs {
  /** @param {Storage | undefined} storage */
  constructor(storage) {
    this.storage = storage;
    /** @type {"grid" | "card"} */
    this.view = "grid";
    this.size = 2;
    this.aid = "";
    this.guard = 0;
    this.why = false; // not kept: a guess is shown when it is asked for, each time anew
    try {
      const { view, size, aid, guard } = JSON.parse(storage?.getItem(KEY) ?? "{}");
      if (view === "card") this.view = view;
      if (SIZES[size]) this.size = size;
      if (Object.hasOwn(AIDS, aid)) this.aid = aid;
      if (GUARDS.includes(guard)) this.guard = guard;
    } catch { /* as it was */ }
  }

  keep() {
    const { view, size, aid, guard } = this;
    try { this.storage?.setItem(KEY, JSON.stringify({ view, size, aid, guard })); } catch { /* a convenience */ }
  }

  nextAid() {
    const names = Object.keys(AIDS);
    this.aid = names[(names.indexOf(this.aid) + 1) % names.length];
    this.keep();
  }

  /** @param {number} step */
  resize(step) {
    this.size = Math.max(0, Math.min(SIZES.length - 1, this.size + step));
    this.keep();
  }

  /** @param {HTMLElement} root */
  apply(root) {
    root.style.setProperty("--baal-tile", `${SIZES[this.size]}px`);
    root.dataset.aid = this.aid;
  }
}
