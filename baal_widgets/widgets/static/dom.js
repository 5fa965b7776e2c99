// @ts-check
// Elements from plain text: nothing that comes from data is ever parsed as markup.

/**
 * @param {string} tag @param {string} name @param {Record<string, string>=} attributes @param {string=} text
 * @returns {HTMLElement}
 */
export function element(tag, name, attributes = {}, text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** Write a text only where it is another one. @param {Element} target @param {string} text */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A button that shows its key and is named for those who hear it.
 * @param {string} name @param {string} key @param {string} style @param {() => void} press */
export function button(name, key, style, press) {
  const made = /** @type {HTMLButtonElement} */ (element("button", `baal-button ${style}`, { type: "button" }));
  made.append(element("span", "baal-name", {}, name));
  if (key) {
    made.append(keycap(key));
    made.setAttribute("aria-keyshortcuts", key);
  }
  made.addEventListener("click", (event) => { if (event.detail < 2) press(); }); // a double click is one press
  return made;
}

/** @param {string} key */
export function keycap(key) {
  const shown = { " ": "Space", Enter: "⏎", Backspace: "⌫", Escape: "Esc" }[key] ?? (key.length === 1 ? key.toUpperCase() : key);
  return element("kbd", "baal-key", { "aria-hidden": "true" }, shown);
}

/** Hues after Okabe and Ito, told apart with every common kind of colour vision; the name always stands beside them.
 * @param {number} value */
export function hue(value) { return [202, 41, 164, 327, 56, 24, 245, 90, 285, 0][value % 10]; }

/** @param {number} share */
export function percent(share) { return `${Math.round(100 * share)} %`; }

/** What can wait until the eye has its answer. @param {() => void} work */
export function afterPaint(work) {
  // a hidden page paints no frames, and nothing may wait for ever
  if (document.visibilityState === "hidden") { work(); return; }
  let done = false;
  const once = () => { if (!done) { done = true; work(); } };
  requestAnimationFrame(() => setTimeout(once));
  setTimeout(once, 100);
}
