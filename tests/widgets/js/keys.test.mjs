import assert from "node:assert/strict";
import test from "node:test";
import { actionOf, moved, nextOpen } from "../../../baal_widgets/widgets/static/keys.js";

const press = (key, more = {}) => actionOf({ key, ...more }, 10);

test("digits stand for the first ten classes, zero for the tenth", () => {
  assert.deepEqual(press("1"), { do: "label", value: 0 });
  assert.deepEqual(press("0"), { do: "label", value: 9 });
});

test("the key of a digit counts also where it writes something else", () => {
  assert.deepEqual(press("&", { code: "Digit1" }), { do: "label", value: 0 });
  assert.equal(press("!", { code: "Digit1", shiftKey: true }), null);
});

test("a digit beyond the classes does nothing", () => {
  assert.equal(actionOf({ key: "3" }, 2), null);
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
