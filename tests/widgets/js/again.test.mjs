import assert from "node:assert/strict";
import test from "node:test";
import { campsText, claimText, suggestedText } from "../../../baal_widgets/widgets/static/again.js";
import { standing } from "../../../baal_widgets/widgets/static/status.js";

const CLASSES = ["cat", "dog"];
const contest = (suggested, share, method) => ({
  camps: [{ value: 1, n: 2, people: ["ann", "bob"] }, { value: 0, n: 1, people: ["eve"] }], suggested, share, method,
});
const now = { spoken: "", gone: false, waits: 0, since: 0, empty: false, queue: "contested", open: 2, rest: 5, left: 0, said: "", canLearn: true };

test("camps are told with their size, and the words agree with it", () => {
  assert.equal(campsText(contest(1, 2 / 3, "majority"), CLASSES), "2 say dog, 1 says cat");
});

test("a suggestion tells what speaks for it, and a tie that nothing does", () => {
  assert.equal(suggestedText(contest(1, 0.667, "majority"), CLASSES), "Suggested: dog, 2 of 3 votes.");
  assert.equal(suggestedText(contest(0, 0.9996, "dawid-skene"), CLASSES), "Suggested: cat, 99 % probable by how often each of them errs.");
  assert.match(suggestedText(contest(null, 0, ""), CLASSES), /^Nothing is suggested/);
});

test("several labels are told in one answer", () => {
  assert.equal(campsText({ camps: [{ value: [0, 1], n: 1, people: ["ann"] }, { value: [], n: 1, people: ["bob"] }] }, CLASSES),
    "1 says cat, dog, 1 says none of these");
});

test("what the model disputes is told with what it goes by", () => {
  assert.equal(claimText({ said: 0, guess: 1, share: 0.97 }, CLASSES), "You said cat; 97 % of its nearest labelled images are dog.");
});

test("the line says what is to be settled, and where it goes on", () => {
  assert.equal(standing({ ...now, spoken: "Settled: dog", said: "2 say dog, 1 says cat. " }).text,
    "Settled: dog. 2 say dog, 1 says cat. 2 to settle.");
  assert.match(standing(now).text, /^2 to settle: a class does, Enter takes what is suggested, S leaves it for later\.$/);
  assert.equal(standing({ ...now, open: 0, left: 3 }).text, "Enter: the next ones.");
  assert.equal(standing({ ...now, open: 0 }).text, "All looked at. Enter: new images.");
});
