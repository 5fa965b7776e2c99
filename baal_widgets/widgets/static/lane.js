// @ts-check
// What follows the page: the newest ranking whose first images are here.

/** @typedef {import("./grid.js").View} View */

const HEAD = 48;        // pictures of a new ranking that must be here before hands follow it

export class Lane {
  constructor() {
    /** @type {number[]} */
    this.cards = [];
    this.of = -1;             // the lesson that ranked it
    /** @type {Set<number>} cards answered since it was laid */
    this.handled = new Set();
  }

  /** What is left of it. @param {Map<number, unknown>} seen  cards with an answer @param {number[]} page */
  following(seen, page) { return this.cards.filter((card) => !seen.has(card) && !this.handled.has(card) && !page.includes(card)); }

  /** Go on by the newest ranking, once its first images are here: hands must not run into empty frames. Whether it is another one.
   * @param {View} view @param {(card: number) => boolean} here @param {boolean} quiet  whether no answer is on its way */
  lay(view, here, quiet) {
    const anew = this.of !== view.generation && this.of >= 0;
    if (anew && !view.queue.slice(0, HEAD).every(here)) return false;
    this.cards = view.queue;
    this.of = view.generation;
    if (quiet) this.handled.clear();
    return anew;
  }
}
