// @ts-check
// The pictures of the cards: asked for ahead of the hands, decoded before they are needed, let go of behind them.

const FLIGHTS = 2;                         // requests on their way at once
const FIRST = 48, LEAST = 12, MOST = 192, LARGE_MOST = 4;  // pictures in a request
const SOON = 250, LATE = 600;              // ms: an answer sooner than this may be larger, one later than that smaller
const LOST = 30000;                        // ms after which an answer is not waited for any more
const KEPT = 600, KEPT_LARGE = 12;

/** @typedef {{url: string, reason: string, whole: boolean, image: HTMLImageElement | null}} Picture
 *   `image` is loaded and is the one to show; a reason where there is none */
/** @typedef {{cards: number[], large: boolean, at: number}} Flight */

export class Pictures {
  /** @param {(message: object) => void} send @param {() => void} arrived */
  constructor(send, arrived) {
    this.send = send;
    this.arrived = arrived;
    /** @type {Map<number, Picture>} */
    this.small = new Map();
    /** @type {Map<number, Picture>} */
    this.large = new Map();
    /** @type {number[]} what is still to be asked for, most wanted first */
    this.queue = [];
    /** @type {number[]} */
    this.largeQueue = [];
    /** @type {Flight[]} */
    this.flights = [];
    this.chunk = FIRST;
    this.heard = 0;      // when the kernel last said anything
    this.closed = false;
  }

  /** The best picture there is of a card. @param {number} card @param {boolean=} large */
  of(card, large = false) {
    const best = large ? this.large.get(card) : undefined;
    return best?.image ? best : this.small.get(card);
  }

  /** Ask for those that are not here, before all that was asked for until now. @param {number[]} cards */
  ask(cards) {
    const wanted = new Set(cards);
    this.queue = [...wanted, ...this.queue.filter((card) => !wanted.has(card))];
    this.pump();
  }

  /** Ask for these in full, and for no others any more. @param {number[]} cards */
  askLarge(cards) {
    this.largeQueue = cards.filter((card) => !this.small.get(card)?.whole);
    this.pump();
  }

  pump() {
    if (this.closed) return;
    this.giveUp();
    this.queue = this.queue.filter((card) => !this.small.has(card));
    this.largeQueue = this.largeQueue.filter((card) => !this.large.has(card));
    while (this.flights.length < FLIGHTS) {
      const large = this.missing(true).length > 0, cards = this.missing(large).slice(0, large ? LARGE_MOST : this.chunk);
      if (!cards.length) return;
      this.flights.push({ cards, large, at: Date.now() });
      this.send({ kind: "pictures", cards, large });
    }
  }

  /** Wait no more for what is lost, and ask for it last. A kernel that is busy has lost nothing: one that has spoken since may have. */
  giveUp() {
    const now = Date.now(), lost = this.flights.filter((flight) => now - flight.at >= LOST && this.heard > flight.at);
    if (!lost.length) return;
    const late = new Set(lost.flatMap((flight) => flight.cards));
    this.flights = this.flights.filter((flight) => !lost.includes(flight));
    this.queue = [...this.queue.filter((card) => !late.has(card)), ...this.queue.filter((card) => late.has(card))];
  }

  /** What is neither here nor on its way. @param {boolean} large */
  missing(large) {
    const flying = new Set(this.flights.filter((flight) => flight.large === large).flatMap((flight) => flight.cards));
    return (large ? this.largeQueue : this.queue).filter((card) => !flying.has(card));
  }

  /** What was asked for may have been lost: ask again when it is needed. */
  forgetWanted() { this.flights = []; }

  /** @param {{cards: number[], types: string[], sizes: number[], reasons: string[], whole: boolean[], large: boolean}} message
   * @param {DataView[]} buffers  one: the pictures, one after the other */
  async take(message, buffers) {
    const flight = this.flights.find(({ cards, large }) => large === message.large && cards.join() === message.cards.join());
    if (flight) {
      const took = Date.now() - flight.at;
      if (!flight.large && took < SOON) this.chunk = Math.min(MOST, 2 * this.chunk);
      if (!flight.large && took > LATE) this.chunk = Math.max(LEAST, this.chunk / 2);
    }
    const held = message.large ? this.large : this.small;
    let start = 0;
    /** @type {[number, Picture][]} */
    const made = message.cards.map((card, place) => {
      const bytes = new Uint8Array(buffers[0].buffer, buffers[0].byteOffset + start, message.sizes[place]), reason = message.reasons[place];
      start += message.sizes[place];
      const url = reason || held.get(card)?.image ? "" : addressOf(bytes, message.types[place], message.large);
      return [card, { url, reason, whole: message.whole[place], image: null }];
    });
    await Promise.all(made.map(async ([card, picture]) => {
      if (picture.url) {
        picture.image = await loaded(picture.url);
        if (!picture.image) picture.reason = "The browser cannot show this picture.";
      }
      const late = held.get(card)?.image || this.closed;
      if (picture.url && (late || !picture.image)) letGo(picture);
      if (!late) held.set(card, picture);
    }));
    if (this.closed) return;
    this.flights = this.flights.filter((other) => other !== flight);
    this.pump();
    this.arrived();
  }

  /** Let go of what is neither shown nor about to be. @param {Set<number>} needed */
  keepOnly(needed) {
    this.queue = this.queue.filter((card) => needed.has(card));
    for (const [held, most] of /** @type {[Map<number, Picture>, number][]} */ ([[this.small, KEPT], [this.large, KEPT_LARGE]])) {
      for (const [card, picture] of held) {
        if (held.size <= most) break;
        if (needed.has(card)) continue;
        held.delete(card);
        letGo(picture);
      }
    }
  }

  close() {
    this.closed = true;
    for (const picture of this.large.values()) letGo(picture);
  }
}

/** @param {Picture} picture */
function letGo(picture) {
  if (picture.url.startsWith("blob:")) URL.revokeObjectURL(picture.url);
  picture.url = "";
}

/** Small pictures as data: URLs, which the page reads by itself; a blob costs a word with the browser's own process, ms each.
 * @param {Uint8Array} bytes @param {string} type @param {boolean} large */
function addressOf(bytes, type, large) {
  if (large) return URL.createObjectURL(new Blob([/** @type {any} */ (bytes)], { type }));
  return `data:${type};base64,${base64(bytes)}`;
}

/** @param {any} bytes */
function base64(bytes) {
  if (bytes.toBase64) return bytes.toBase64(); // browsers since 2025
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode.apply(null, bytes.subarray(i, i + 8192));
  return btoa(text);
}

const TINY = 100; // pixels: below this each one is shown as a square

/** @param {string} url @returns {Promise<HTMLImageElement | null>} */
function loaded(url) {
  const image = new Image();
  image.className = "baal-image";
  image.alt = "";
  image.draggable = false;
  image.decoding = "sync"; // painted in the frame in which it is asked for
  return new Promise((resolve) => {
    image.onload = () => {
      image.classList.toggle("baal-tiny", Math.max(image.naturalWidth, image.naturalHeight) < TINY);
      resolve(image);
    };
    image.onerror = () => resolve(null);
    image.src = url;
  });
}
