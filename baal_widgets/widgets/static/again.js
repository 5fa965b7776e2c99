// @ts-check
// A second look: at labels that the model disputes, and at images of which people do not say the same.
import { element, hue, percent } from "./dom.js";
import { answerText } from "./status.js";

/** @typedef {import("./outbox.js").Value} Value */
/** @typedef {import("./grid.js").View} View */
/** @typedef {"" | "reviews" | "contested"} Queue  what is looked at: new images, labels that the model disputes, or what people do */
/**
 * @typedef {object} Contest  what people say of an image, the most said first
 * @property {{value: Value, n: number, people: string[]}[]} camps
 * @property {Value | null} suggested  what it could be settled as, null where nothing speaks for one more than for others
 * @property {number} share  of the votes, or how probable it is
 * @property {"" | "majority" | "dawid-skene"} method
 */

/** @param {Contest} contest @param {string[]} classes */
export function campsText(contest, classes) {
  return contest.camps.map(({ value, n }) => `${n} ${n === 1 ? "says" : "say"} ${answerText(value, classes)}`).join(", ");
}

/** @param {Contest} contest @param {string[]} classes */
export function suggestedText({ suggested, share, method, camps }, classes) {
  if (suggested === null) return "Nothing is suggested: neither has more to speak for it.";
  const votes = camps.reduce((sum, { n }) => sum + n, 0);
  const why = method === "majority" ? `${Math.round(share * votes)} of ${votes} votes`
    : `${percent(Math.min(share, 0.99))} probable by how often each of them errs`;
  return `Suggested: ${answerText(suggested, classes)}, ${why}.`;
}

/** Both in short, to be read aloud. @param {Contest} contest @param {string[]} classes */
export function contestText(contest, classes) {
  return `${campsText(contest, classes)}${contest.suggested === null ? "" : `; suggested: ${answerText(contest.suggested, classes)}`}. `;
}

/** @param {{said: Value, guess: number, share: number}} claim @param {string[]} classes */
export function claimText(claim, classes) {
  return `You said ${answerText(claim.said, classes)}; ${percent(claim.share)} of its nearest labelled images are ${classes[claim.guess]}.`;
}

/** Which queue is open and what was passed over in it. */
export class Again {
  /** @param {(value: Value) => void} settle */
  constructor(settle) {
    this.settle = settle;
    /** @type {Queue} */
    this.queue = "";
    /** @type {Set<number>} cards left for later since the queue was opened */
    this.passed = new Set();
    /** @type {number[]} those of them that an undo takes back */
    this.passes = [];
    this.panel = element("div", "baal-said", { role: "region", "aria-label": "Who says what" });
    this.panel.hidden = true;
  }

  /** Open a queue, or close it where it is open; its first cards. @param {Queue} queue @param {View} view */
  toggle(queue, view) {
    this.queue = queue && this.queue !== queue && view[queue].length ? queue : "";
    this.passed.clear();
    this.passes = [];
    return this.queue ? view[this.queue].slice(0, view.size) : [];
  }

  /** What is left of the queue beyond the page. @param {View} view @param {Map<number, Value>} seen @param {number[]} page */
  left(view, seen, page) {
    if (!this.queue) return [];
    return view[this.queue].filter((card) => !seen.has(card) && !page.includes(card) && !this.passed.has(card)).slice(0, view.size);
  }

  /** The queue that a page is of, where another window has turned to it. @param {number[]} page @param {View} view */
  follow(page, view) {
    this.queue = page.some((card) => view.contests[card]) ? "contested" : page.some((card) => view.claims[card]) ? "reviews" : "";
  }

  /** @param {number[]} cards */
  pass(cards) {
    for (const card of cards) this.passed.add(card);
    this.passes.push(...cards);
  }

  /** The card that was passed over last, open again. */
  takeBack() {
    const card = this.passes.pop();
    if (card !== undefined) this.passed.delete(card);
    return card;
  }

  /** Who says what of the card under the hands. @param {View} view @param {number | undefined} card @param {Value | undefined} answer */
  paint(view, card, answer) {
    const contest = card === undefined ? undefined : view.contests[card];
    this.panel.hidden = !contest;
    if (!contest) return;
    const look = JSON.stringify([contest, answer, view.classes]);
    if (this.panel.dataset.look === look) return;
    this.panel.dataset.look = look;
    const settled = answer !== undefined && answer !== -1;
    const head = element("p", "baal-why-head", {}, settled ? `Settled: ${answerText(answer, view.classes)}` : "People disagree");
    const rows = contest.camps.map(({ value, n, people }) => this.row(value, n, people, contest, view.classes));
    this.panel.replaceChildren(head, ...rows, element("p", "baal-soft", {}, suggestedText(contest, view.classes)));
  }

  /** @param {Value} value @param {number} n @param {string[]} people @param {Contest} contest @param {string[]} classes */
  row(value, n, people, contest, classes) {
    const name = answerText(value, classes), more = n - people.length;
    const who = people.join(", ") + (more ? ` and ${more} more` : "");
    const first = String(contest.suggested) === String(value);
    const made = element("button", "baal-button baal-camp", { type: "button",
      "aria-label": `Settle as ${name}: ${n} of them, ${who}${first ? ", suggested" : ""}` });
    const single = Array.isArray(value) ? value[0] ?? 0 : value;
    made.style.setProperty("--baal-hue", String(hue(single)));
    made.append(element("span", "baal-camp-name", {}, `${n} × ${name}`));
    if (first) made.append(element("span", "baal-badge", {}, "suggested"));
    made.append(element("span", "baal-camp-people", {}, who));
    made.addEventListener("click", (event) => { if (event.detail < 2) this.settle(value); });
    return made;
  }
}
