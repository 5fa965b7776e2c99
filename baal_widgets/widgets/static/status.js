// @ts-check
// The line that says what happened and what to do next. It is read aloud, so it is short.

const PATIENCE = 1500;  // ms that an answer may wait before the person is told

/**
 * @param {{spoken: string, gone: boolean, waits: number, since: number, empty: boolean, reviewing: boolean, open: number,
 *   rest: number, canLearn: boolean}} now  `since`: how long the oldest answer waits, in ms
 * @returns {{text: string, warns: boolean}}
 */
export function standing({ spoken, gone, waits, since, empty, reviewing, open, rest, canLearn }) {
  const first = spoken ? `${spoken}. ` : "", answers = waits === 1 ? "1 answer is" : `${waits} answers are`;
  if (gone) return { text: `The kernel is gone. ${answers} kept in this browser and will be saved when the cell runs again.`, warns: true };
  if (waits && since > PATIENCE) return { text: `The kernel is busy. ${answers} kept here and will be saved when it is free.`, warns: true };
  let text = spoken && `${first}${open} to go.`;
  if (empty) text = "Nothing is left to label.";
  else if (reviewing) text = open ? `${first}${open} labels to look at again: a class changes it, Enter keeps it.` : "All looked at. Enter: new images.";
  else if (!open) text = `${first}All answered.${rest ? " Enter: next images." : canLearn ? " R: retrain." : ""}`;
  return { text, warns: false };
}
