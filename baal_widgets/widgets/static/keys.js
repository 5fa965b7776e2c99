// @ts-check
// What a key means, and where the focus goes. No page is needed to try these.

/**
 * @typedef {object} Keymap  which key is whose
 * @property {string[]} classes  one for each class, "" for none
 * @property {Record<string, string>} commands
 */
/** @typedef {{do: string, value?: number}} Action */

/**
 * What a key press asks for, or null where it is not ours.
 * @param {{key: string, code?: string, ctrlKey?: boolean, metaKey?: boolean, altKey?: boolean, shiftKey?: boolean}} event
 * @param {Keymap} keymap
 * @returns {Action | null}
 */
export function actionOf(event, keymap) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.altKey) return null;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return { do: event.shiftKey ? "redo" : "undo" };
    return { y: { do: "redo" }, a: { do: "all" } }[key] ?? null;
  }
  switch (key) {
    case "ArrowLeft": case "ArrowRight": case "ArrowUp": case "ArrowDown":
    case "Home": case "End": case "PageUp": case "PageDown":
      return { do: "move" };
    case " ": return { do: "pick" };
    case "Backspace": return { do: "undo" };
    case "Escape": return { do: "leave" };
    case "F2": return { do: "rename" };
  }
  const value = keymap.classes.indexOf(key);
  if (value >= 0 && key) return { do: "label", value };
  for (const [name, own] of Object.entries(keymap.commands)) {
    if (own && own === key) return { do: name === "undo" && event.shiftKey ? "redo" : name };
  }
  if (key === "=") return { do: "larger" }; // the plus key without shift, on many keyboards
  // some keyboards, such as the French one, have digits only with shift: the place of the key counts too
  const place = event.shiftKey ? null : /^Digit(\d)$/.exec(event.code ?? "");
  const digit = place ? keymap.classes.indexOf(place[1]) : -1;
  return digit >= 0 ? { do: "label", value: digit } : null;
}

/**
 * The place the focus moves to, kept inside the page. `rows` is what a page key moves by.
 * @param {string} key @param {number} at @param {number} count @param {number} columns @param {number=} rows
 */
export function moved(key, at, count, columns, rows = 3) {
  const step = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -rows * columns, PageDown: rows * columns,
  }[key];
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (step === undefined) return at;
  const goal = at + step;
  if (key.startsWith("Page")) return Math.max(0, Math.min(goal, count - 1));
  return goal < 0 || goal >= count ? at : goal;
}

/**
 * The next place without an answer, searching forward from `at` and round again; `at` when all have one.
 * @param {boolean[]} answered @param {number} at
 */
export function nextOpen(answered, at) {
  for (let step = 1; step <= answered.length; step++) {
    const place = (at + step) % answered.length;
    if (!answered[place]) return place;
  }
  return at;
}

/** Whether a press is none: a key held down, or the last one once more within `guard` ms. Keeps what it needs in `last`.
 * @param {{key: string, repeat?: boolean, timeStamp: number}} event @param {{key: string, at: number}} last
 * @param {number} guard  0 for fingers that are sure of themselves */
export function isDouble(event, last, guard) {
  const twice = event.repeat || (event.key === last.key && event.timeStamp - last.at < guard);
  if (!event.repeat) Object.assign(last, { key: event.key, at: event.timeStamp });
  return Boolean(twice);
}

/**
 * The classes that a few typed letters may mean: those that begin so, then those with a word that does, then those
 * that contain them; among equals the ones used last come first.
 * @param {string} typed @param {string[]} names @param {number[]} recent  class indices, the latest first
 * @returns {number[]}
 */
export function found(typed, names, recent) {
  const sought = typed.trim().toLowerCase();
  /** @param {number} value */
  const rank = (value) => {
    const name = names[value].toLowerCase(), at = name.indexOf(sought);
    if (at < 0) return -1;
    if (at === 0) return 0;
    return /[\s_\-./]/.test(name[at - 1]) ? 1 : 2;
  };
  /** @param {number} value */
  const age = (value) => (recent.includes(value) ? recent.indexOf(value) : recent.length + value);
  return names.map((_, value) => value).filter((value) => names[value] && rank(value) >= 0)
    .sort((a, b) => (sought ? rank(a) - rank(b) : 0) || age(a) - age(b));
}

/** Where two corners drawn by a hand span a frame, the places of the boxes that it touches.
 * @param {{left: number, top: number, right: number, bottom: number}} frame
 * @param {{left: number, top: number, right: number, bottom: number}[]} boxes */
export function touched(frame, boxes) {
  return boxes.flatMap((box, place) => (
    box.left < frame.right && box.right > frame.left && box.top < frame.bottom && box.bottom > frame.top ? [place] : []
  ));
}
