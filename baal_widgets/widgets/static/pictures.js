// @ts-check
// The pictures of the cards: asked for ahead of the hands, decoded before they are needed, let go of behind them.

const CHUNK = 24, KEPT = 600, KEPT_LARGE = 12;

/** @typedef {{url: string, reason: string, whole: boolean}} Picture  a reason where it cannot be shown */

export class Pictures {
  /** @param {(message: object) => void} send @param {() => void} arrived */
  constructor(send, arrived) {
    this.send = send;
    this.arrived = arrived;
    /** @type {Map<number, Picture>} */
    this.small = new Map();
    /** @type {Map<number, Picture>} */
    this.large = new Map();
    /** @type {Set<string>} */
    this.wanted = new Set();
    /** @type {Map<string, HTMLImageElement>} decoded and held, so that showing one costs nothing */
    this.ready = new Map();
  }

  /** The best picture there is of a card. @param {number} card @param {boolean=} large */
  of(card, large = false) {
    return (large ? this.large.get(card) : undefined) ?? this.small.get(card);
  }

  /** Ask for those that are neither here nor on their way. @param {number[]} cards @param {boolean=} large */
  ask(cards, large = false) {
    const held = large ? this.large : this.small;
    const missing = cards.filter((card) => !held.has(card) && !this.wanted.has(`${large} ${card}`)
      && !(large && this.small.get(card)?.whole));
    for (const card of missing) this.wanted.add(`${large} ${card}`);
    for (let i = 0; i < missing.length; i += CHUNK) {
      this.send({ kind: "pictures", cards: missing.slice(i, i + CHUNK), large });
    }
  }

  /** What was asked for may have been lost: ask again when it is needed. */
  forgetWanted() { this.wanted.clear(); }

  /** @param {{cards: number[], types: string[], reasons: string[], whole: boolean[], large: boolean}} message
   * @param {DataView[]} buffers */
  take(message, buffers) {
    const held = message.large ? this.large : this.small;
    message.cards.forEach((card, place) => {
      this.wanted.delete(`${message.large} ${card}`);
      const old = held.get(card);
      if (old && !old.reason) return;
      const reason = message.reasons[place];
      const bytes = /** @type {any} */ (buffers[place]);
      const url = reason ? "" : URL.createObjectURL(new Blob([bytes], { type: message.types[place] }));
      held.set(card, { url, reason, whole: message.whole[place] });
    });
    this.arrived();
  }

  /** Decode a card's picture now, so that it can be painted in the frame in which it is asked for.
   * @param {number} card @param {boolean} large @returns {HTMLImageElement | null} */
  decoded(card, large) {
    const picture = this.of(card, large);
    if (!picture?.url) return null;
    let image = this.ready.get(picture.url);
    if (!image) {
      image = new Image();
      image.decoding = "sync";
      image.draggable = false;
      image.src = picture.url;
      this.ready.set(picture.url, image);
      image.decode().catch(() => {});
      if (this.ready.size > 2 * KEPT_LARGE) this.ready.delete(/** @type {string} */ (this.ready.keys().next().value));
    }
    return image;
  }

  /** Let go of what is neither shown nor about to be. @param {Set<number>} needed */
  keepOnly(needed) {
    for (const [held, most] of /** @type {[Map<number, Picture>, number][]} */ ([[this.small, KEPT], [this.large, KEPT_LARGE]])) {
      for (const [card, { url }] of held) {
        if (held.size <= most) break;
        if (needed.has(card)) continue;
        held.delete(card);
        if (!url) continue;
        this.ready.delete(url);
        URL.revokeObjectURL(url);
      }
    }
  }

  close() {
    for (const held of [this.small, this.large]) for (const { url } of held.values()) if (url) URL.revokeObjectURL(url);
  }
}
