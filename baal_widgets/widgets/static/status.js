// @ts-check
// What was answered, in words, and the line that says what happened and what to do next: read aloud, so it is short.

const PATIENCE = 1500;  // ms that an answer may wait before the person is told

/** @typedef {import("./outbox.js").Value} Value */

/** @param {Value | undefined} value @param {string[]} classes */
export function answerText(value, classes) {
  if (value === undefined) return "";
  if (Array.isArray(value)) return value.length ? value.map((one) => classes[one]).join(", ") : "none of these";
  return value === -1 ? "skipped" : value === -2 ? "unsure" : classes[value] ?? "";
}

/**
 * @param {{spoken: string, gone: boolean, waits: number, since: number, empty: boolean, queue: import("./again.js").Queue, open: number,
 *   rest: number, left: number, said: string, canLearn: boolean}} now  `since`: how long the oldest answer waits, in ms;
 *   `left`: what a second look goes on with beyond the page; `said`: what people say of the image under the hands
 * @returns {{text: string, warns: boolean}}
 */
export function standing({ spoken, gone, waits, since, empty, queue, open, rest, left, said, canLearn }) {
  const first = spoken ? `${spoken}. ` : "", answers = waits === 1 ? "1 answer is" : `${waits} answers are`;
  if (gone) return { text: `The kernel is gone. ${answers} kept in this browser and will be saved when the cell runs again.`, warns: true };
  if (waits && since > PATIENCE) return { text: `The kernel is busy. ${answers} kept here and will be saved when it is free.`, warns: true };
  let text = spoken && `${first}${open} to go.`;
  if (empty) text = "Nothing is left to label.";
  else if (queue && !open) text = left ? `${first}Enter: the next ones.` : "All looked at. Enter: new images.";
  else if (queue === "reviews") text = `${first}${open} labels to look at again: a class changes it, Enter keeps it.`;
  else if (queue) text = `${first}${said}${open} to settle${spoken ? "" : ": a class does, Enter takes what is suggested, S leaves it for later"}.`;
  else if (!open) text = `${first}All answered.${rest ? " Enter: next images." : canLearn ? " R: retrain." : ""}`;
  return { text, warns: false };
}
