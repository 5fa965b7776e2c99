// @ts-check
// The sheet of keys: what each one does, as it is now.
import { element, keycap } from "./dom.js";
import { GUARDS } from "./prefs.js";

/** Commands in the order in which they are told, with what they do. */
export const TOLD = {
  pick: "select or unselect this image", skip: "skip: not asked again, not learned from",
  unsure: "don't know: set aside, and listed as unsure", flag: "flag for a second look", note: "write a note",
  undo: "undo; with shift, redo", next: "next images; in a second look: keep my label, or take what is suggested", view: "grid or single image",
  guess: "show the model's guess of this image", confirm: "take the model's guess, or what is suggested, as the answer", why: "why this image",
  again: "look again at labels that the model disputes", settle: "settle what people disagree on", learn: "retrain the model", export: "write the labels to a file", find: "find a class by name, or add one",
  aid: "contrast aid (display only)", larger: "larger tiles, zoom in", smaller: "smaller tiles, zoom out", keys: "this sheet",
};
const FIXED = /** @type {[string, string][]} */ ([
  ["Space", "select or unselect this image"], ["⇧ + arrows or click", "select a range"], ["Ctrl + A", "select all"],
  ["Drag across the grid", "select by a frame"], ["Arrows, Home, End, Page keys", "move"],
  ["Ctrl + Z, ⌫", "undo"], ["Ctrl + ⇧ + Z, Ctrl + Y", "redo"], ["F2 on a class button", "rename the class, or merge it into another"],
  ["Esc", "unselect, close, then back to the notebook"],
]);

/** @param {HTMLElement} sheet @param {string[]} classes @param {import("./keys.js").Keymap} keymap
 * @param {import("./prefs.js").Prefs} prefs @param {() => void} close */
export function fillSheet(sheet, classes, keymap, prefs, close) {
  const table = element("div", "baal-keys", { role: "list" });
  /** @param {Node} key @param {string} text */
  const row = (key, text) => {
    const line = element("div", "baal-keys-row", { role: "listitem" });
    line.append(key, element("span", "", {}, text));
    table.append(line);
  };
  classes.forEach((name, value) => { if (keymap.classes[value]) row(keycap(keymap.classes[value]), name); });
  for (const [name, text] of Object.entries(TOLD)) if (keymap.commands[name]) row(keycap(keymap.commands[name]), text);
  for (const [key, text] of FIXED) row(element("kbd", "baal-key", {}, key), text);
  const shut = element("button", "baal-button", { type: "button" }, "Close");
  shut.addEventListener("click", close);
  const guard = /** @type {HTMLSelectElement} */ (element("select", "baal-select"));
  for (const ms of GUARDS) guard.append(element("option", "", { value: String(ms) }, ms ? `within ${ms} ms` : "never"));
  guard.value = String(prefs.guard);
  guard.addEventListener("change", () => { prefs.guard = Number(guard.value); prefs.keep(); });
  const guarded = element("label", "baal-check", {}, "Ignore the same key pressed twice");
  guarded.append(guard);
  const end = element("div", "baal-foot");
  end.append(guarded, shut);
  sheet.replaceChildren(element("h3", "", {}, "Keys"), table, end);
  shut.focus({ preventScroll: true });
}
