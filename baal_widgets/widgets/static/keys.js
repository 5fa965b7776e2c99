// @ts-check
// What a key means, and where the focus goes. No page is needed to try these.

/** Keys of the first ten classes. */
export const HOTKEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"];

/**
 * What a key press asks for, or null where it is not ours.
 * @param {{key: string, code?: string, ctrlKey?: boolean, metaKey?: boolean, altKey?: boolean, shiftKey?: boolean}} event
 * @param {number} nClasses
 * @returns {{do: string, value?: number} | null}
 */
export function actionOf(event, nClasses) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.altKey) return null;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return { do: event.shiftKey ? "redo" : "undo" };
    return key === "y" ? { do: "redo" } : null;
  }
  // some keyboards, such as the French one, have digits only with shift: the place of the key counts too
  const place = event.shiftKey ? null : /^Digit(\d)$/.exec(event.code ?? "");
  const value = HOTKEYS.indexOf(HOTKEYS.includes(key) ? key : place?.[1] ?? "");
  if (value >= 0) return value < nClasses ? { do: "label", value } : null;
  switch (key) {
    case "s": return { do: "skip" };
    case "u": return { do: event.shiftKey ? "redo" : "undo" };
    case "Backspace": return { do: "undo" };
    case "r": return { do: "learn" };
    case "Enter": case "n": return { do: "next" };
    case "Escape": return { do: "leave" };
    case "ArrowLeft": case "ArrowRight": case "ArrowUp": case "ArrowDown": case "Home": case "End":
      return { do: "move" };
    default: return null;
  }
}

/**
 * The place the focus moves to, kept inside the grid.
 * @param {string} key @param {number} at @param {number} count @param {number} columns
 */
export function moved(key, at, count, columns) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (step === undefined) return at;
  const goal = at + step;
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
