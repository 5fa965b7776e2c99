// @ts-check
// Answers on their way to the journal. Each is kept, here and in the browser's storage, until the kernel has
// said that it is on disk; whatever may have been lost on the way is sent again under the same id.

/** @typedef {number | number[]} Value  a class index, -1 for skipped, -2 for unsure; a list where several may hold */
/**
 * @typedef {object} Op
 * @property {string} id
 * @property {string} op
 * @property {number=} card
 * @property {Value=} value
 * @property {string=} text
 * @property {boolean=} on
 * @property {string=} group
 * @property {object=} about
 * @property {number} at
 * @property {number} n
 */

const ANSWERS = ["label", "skip", "unsure"];

/** What the kernel knows with what is still on its way laid over it: card -> value.
 * @param {Record<string, Value>} answers @param {Op[]} pending
 */
export function overlay(answers, pending) {
  const seen = new Map(Object.entries(answers).map(([card, value]) => [Number(card), value]));
  for (const op of pending) {
    if (op.card === undefined || !ANSWERS.includes(op.op)) continue;
    if (op.op !== "label") seen.set(op.card, op.op === "skip" ? -1 : -2);
    else if (op.value !== undefined) seen.set(op.card, op.value);
  }
  return seen;
}

/** An id no other operation has, in time order within this page. */
export function newId() {
  const random = crypto.getRandomValues(new Uint32Array(3));
  return `${Date.now().toString(36)}-${Array.from(random, (part) => part.toString(36)).join("")}`;
}

const DAYS_KEPT = 30;

export class Outbox {
  /**
   * @param {(message: object) => void} send  may throw when the kernel is gone
   * @param {string} store  names the journal, so that answers find their way after a restart
   * @param {Storage | undefined} storage
   * @param {(work: () => void) => void=} later  when to send: after the page has been painted
   */
  constructor(send, store, storage, later = (work) => work()) {
    this.send = send;
    this.later = later;
    this.prefix = `baal-widgets:${store}:`;
    this.storage = storage;
    /** @type {Op[]} */
    this.pending = this.kept();
    /** @type {Op[]} */
    this.unsent = [];
    this.lastSent = 0;
    /** Whether some of what was sent is known not to be saved. */
    this.unsure = false;
    this.counter = 0;
  }

  /** @param {string} op @param {Omit<Op, "id" | "op" | "at" | "n">=} told @returns {Op} */
  add(op, told = {}) {
    const entry = { id: newId(), op, ...told, at: Date.now(), n: this.counter++ };
    this.pending.push(entry);
    this.keep(entry);
    if (!this.unsent.push(entry)) return entry;
    if (this.unsent.length === 1) this.later(() => this.flush());
    return entry;
  }

  /** Send what was added since the last time, in one message. */
  flush() {
    const entries = this.unsent;
    this.unsent = [];
    if (!entries.length) return;
    // nothing may overtake what has not arrived: then all goes again, in order
    this.post(this.unsure ? this.pending : entries);
  }

  /** The kernel has these on disk, or will not have them: of which cards they tell. @param {string[]} ids */
  done(ids) {
    if (!ids.length) return [];
    const gone = new Set(ids), cards = this.pending.flatMap((entry) => (gone.has(entry.id) && entry.card !== undefined ? [entry.card] : []));
    this.pending = this.pending.filter((entry) => !gone.has(entry.id));
    for (const id of ids) this.forget(id);
    if (!this.pending.length) this.unsure = false;
    return cards;
  }

  /** Send everything unanswered once more, in order. */
  again() {
    this.unsent = [];
    if (this.pending.length) this.post(this.pending);
  }

  /** Since when the oldest answer waits, in ms; 0 when none does. */
  waiting() {
    return this.pending.length ? Date.now() - this.pending[0].at : 0;
  }

  /** @param {Op[]} entries */
  post(entries) {
    this.lastSent = Date.now();
    this.send({ kind: "ops", ops: entries });
  }

  /** @returns {Op[]} */
  kept() {
    const found = [], oldest = Date.now() - DAYS_KEPT * 86_400_000;
    try {
      for (let i = 0; this.storage && i < this.storage.length; i++) {
        const key = this.storage.key(i);
        if (key?.startsWith(this.prefix)) found.push(JSON.parse(this.storage.getItem(key) ?? "null"));
      }
    } catch { /* storage is a convenience: private windows may refuse it */ }
    return found.filter((entry) => entry?.id && entry?.op && entry.at > oldest).sort((a, b) => a.at - b.at || a.n - b.n);
  }

  /** @param {Op} entry */
  keep(entry) {
    try { this.storage?.setItem(this.prefix + entry.id, JSON.stringify(entry)); } catch { /* as above */ }
  }

  /** @param {string} id */
  forget(id) {
    try { this.storage?.removeItem(this.prefix + id); } catch { /* as above */ }
  }
}
