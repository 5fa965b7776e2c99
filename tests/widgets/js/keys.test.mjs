import assert from "node:assert/strict";
import test from "node:test";
import { actionOf, found, isDouble, moved, nextOpen, touched } from "../../../baal_widgets/widgets/static/keys.js";

const KEYMAP = {
  classes: [..."1234567890a"],
  commands: { skip: "s", undo: "u", next: "Enter", keys: "?", larger: "+", again: "" },
};
const press = (key, more = {}) => actionOf({ key, ...more }, KEYMAP);

test("a class's key is the one the map gives it, digit or letter, in either case", () => {
  assert.deepEqual(press("1"), { do: "label", value: 0 });
  assert.deepEqual(press("0"), { do: "label", value: 9 });
  assert.deepEqual(press("A", { shiftKey: true }), { do: "label", value: 10 });
});

test("a key of one's own wins over the place of a digit", () => {
  const own = { classes: ["x", "2"], commands: {} };
  assert.deepEqual(actionOf({ key: "x" }, own), { do: "label", value: 0 });
  assert.equal(actionOf({ key: "1", code: "Digit1" }, own), null);
});

test("the key of a digit counts also where it writes something else", () => {
  assert.deepEqual(press("&", { code: "Digit1" }), { do: "label", value: 0 });
  assert.equal(press("!", { code: "Digit1", shiftKey: true }), null);
});

test("a class that was merged into another is not found", () => {
  assert.deepEqual(found("", ["cat", "", "cow"], []), [0, 2]);
  assert.deepEqual(found("c", ["cat", "", "cow"], [2]), [2, 0]);
});

test("a digit beyond the classes does nothing", () => {
  assert.equal(actionOf({ key: "3" }, { classes: ["1", "2"], commands: {} }), null);
});

test("capitals mean the same as small letters, but for undo and redo", () => {
  assert.deepEqual(press("S"), { do: "skip" });
  assert.deepEqual(press("u"), { do: "undo" });
  assert.deepEqual(press("U", { shiftKey: true }), { do: "redo" });
});

test("the usual chords undo and redo; the notebook keeps all others", () => {
  assert.deepEqual(press("z", { ctrlKey: true }), { do: "undo" });
  assert.deepEqual(press("z", { metaKey: true, shiftKey: true }), { do: "redo" });
  assert.equal(press("s", { ctrlKey: true }), null);
  assert.equal(press("1", { altKey: true }), null);
});

test("the focus stays inside the grid", () => {
  assert.equal(moved("ArrowRight", 23, 24, 8), 23);
  assert.equal(moved("ArrowDown", 3, 24, 8), 11);
  assert.equal(moved("ArrowUp", 3, 24, 8), 3);
  assert.equal(moved("End", 3, 24, 8), 23);
});

test("the next open place is searched forward and round again", () => {
  assert.equal(nextOpen([true, false, true, false], 1), 3);
  assert.equal(nextOpen([true, false, true, true], 2), 1);
  assert.equal(nextOpen([true, true], 1), 1);
  assert.equal(nextOpen([], 0), 0);
});

test("a page key moves by rows and stops at the ends", () => {
  assert.equal(moved("PageDown", 3, 24, 4, 2), 11);
  assert.equal(moved("PageDown", 20, 24, 4, 2), 23);
  assert.equal(moved("PageUp", 3, 24, 4, 2), 0);
});

test("a command without a key is not done by any", () => {
  assert.equal(press(""), null);
  assert.deepEqual(press("Enter"), { do: "next" });
  assert.deepEqual(press("="), { do: "larger" });
});

test("select all is the page's while it has the focus", () => {
  assert.deepEqual(press("a", { ctrlKey: true }), { do: "all" });
});

test("a key that is held down counts once, and one pressed twice too where the person wants that", () => {
  const last = { key: "", at: 0 };
  const press = (key, timeStamp, guard, repeat = false) => isDouble({ key, timeStamp, repeat }, last, guard);
  assert.equal(press("1", 1000, 200), false);
  assert.equal(press("1", 1150, 200), true);
  assert.equal(press("2", 1160, 200), false);
  assert.equal(press("2", 1400, 200), false);
  assert.equal(press("2", 1410, 0), false);
  assert.equal(press("2", 1900, 0, true), true);
});

test("what is typed finds beginnings before words before parts, and the latest used first", () => {
  const names = ["red shirt", "shirt", "t-shirt", "overshirt", "shoe"];
  assert.deepEqual(found("shirt", names, []), [1, 0, 2, 3]);
  assert.deepEqual(found("sh", names, [4]), [4, 1, 0, 2, 3]);
  assert.deepEqual(found("", names, [3, 1]), [3, 1, 0, 2, 4]);
  assert.deepEqual(found("nothing", names, []), []);
});

test("a frame touches what it overlaps, not what it only meets", () => {
  const box = (left, top) => ({ left, top, right: left + 10, bottom: top + 10 });
  assert.deepEqual(touched({ left: 5, top: 5, right: 20, bottom: 8 }, [box(0, 0), box(12, 0), box(20, 0), box(0, 20)]), [0, 1]);
});
