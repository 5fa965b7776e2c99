// @ts-check
// How cards stand and look: what the kernel tells of them, with what is still on its way laid over it.
import { campsText } from "./again.js";
import { hue, percent } from "./dom.js";
import { overlay } from "./outbox.js";
import { answerText } from "./status.js";

export const PAST = 12;  // answers in the history strip

/** @typedef {import("./outbox.js").Value} Value */
/** @typedef {import("./outbox.js").Op} Op */
/** @typedef {import("./grid.js").View} View */
/** @typedef {import("./why.js").Why} Why */

/** The cards that have an answer, with it: in a second look, those that were looked at or left for later.
 * @param {View | null} view @param {Op[]} pending @param {Set<number>} passed */
export function answeredOf(view, pending, passed) {
  const seen = overlay(view?.answers ?? {}, pending);
  for (const op of pending) if (op.op === "keep" && op.card !== undefined) seen.set(op.card, view?.claims[op.card]?.said ?? -1);
  for (const card of passed) if (!seen.has(card)) seen.set(card, -1);
  return seen;
}

/** The cards whose answers are on their way. @param {Op[]} pending */
export function waitingOf(pending) { return new Set(pending.filter((op) => op.op !== "flag" && op.op !== "note").map((op) => op.card)); }

/** The last answers, newest first: those on their way, then those that are kept. @param {View | null} view @param {Op[]} pending */
export function latestOf(view, pending) {
  const ways = pending.flatMap((op) => [...overlay({}, [op])]).reverse();
  /** @type {Map<number, Value>} */
  const last = new Map();
  for (const [card, value] of [...ways, ...(view?.recent ?? [])]) if (!last.has(card)) last.set(card, value);
  return [...last].slice(0, PAST);
}

/** The class that the model takes an image for. @param {Why | null | undefined} known */
export function best(known) { return known ? known.probabilities.indexOf(Math.max(...known.probabilities)) : undefined; }

/**
 * @param {View} view @param {number} card @param {Value | undefined} value  its answer
 * @param {{waits: boolean, reason: string, asked: Why | null | undefined}} more  whether the answer is on its way, why there is no
 *   picture, and what the model says where the person has asked for it
 * @returns {import("./stage.js").Look}
 */
export function lookOf(view, card, value, { waits, reason, asked }) {
  const told = view.guesses[card], contest = view.contests[card];
  const guessed = told ? told[0] : best(asked), share = told ? told[1] : Math.max(...(asked?.probabilities ?? [0]));
  const single = Array.isArray(value) ? value[0] ?? -1 : value ?? -1;
  return {
    state: value === undefined ? "open" : waits ? "pending" : "saved",
    answer: answerText(value, view.classes),
    hue: single >= 0 ? hue(single) : -1,
    camps: contest ? campsText(contest, view.classes) : "",
    guess: guessed === undefined ? "" : `${view.classes[guessed]} ${percent(share)}`,
    differs: guessed !== undefined && value !== undefined && (Array.isArray(value) ? !value.includes(guessed) : value >= 0 && value !== guessed),
    flagged: Boolean(view.marks[card]?.flag),
    noted: Boolean(view.marks[card]?.note),
    reason,
  };
}
