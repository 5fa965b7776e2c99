import assert from "node:assert/strict";
import test from "node:test";
import { answerText } from "../../../baal_widgets/widgets/static/status.js";
import { tally, verdict } from "../../../baal_widgets/widgets/static/why.js";

test("the draws are told as votes, the largest part first", () => {
  assert.equal(tally([1, 0, 1, 1], ["coat", "shirt"]), "3 of 4 draws say shirt, 1 say coat");
});

test("what the two shares mean is said in words", () => {
  const why = (total, epistemic) => verdict({ total, epistemic, aleatoric: total - epistemic });
  assert.match(why(0.01, 0), /sure/);
  assert.match(why(1, 0.8), /not seen enough/);
  assert.match(why(1, 0.05), /ambiguous/);
  assert.match(why(1, 0.3), /Partly/);
});

test("an answer reads as its classes, or as what it is instead of one", () => {
  assert.equal(answerText([0, 1], ["a", "b"]), "a, b");
  assert.equal(answerText([], ["a"]), "none of these");
  assert.deepEqual([-1, -2, 0, undefined].map((value) => answerText(value, ["a"])), ["skipped", "unsure", "a", ""]);
});
