// @ts-check
// Where the images are: as tiles in a grid, or one at a time with zoom. It shows looks and reports gestures.
import { afterPaint, element, write } from "./dom.js";
import { touched } from "./keys.js";

/**
 * @typedef {object} Look  how a card stands
 * @property {"open" | "pending" | "saved"} state
 * @property {string} answer
 * @property {number} hue  -1 where the answer is no class
 * @property {string} guess  what the model says, where it may be told
 * @property {string} camps  what people say, where they disagree
 * @property {boolean} differs  whether the guess is another one than the answer
 * @property {boolean} flagged
 * @property {boolean} noted
 * @property {string} reason  why there is no picture
 */

const DRAG = 6;   // pixels: less is a click

export class Stage {
  /**
   * @param {{click: (place: number, event: MouseEvent) => void, framed: (places: number[], more: boolean) => void,
   *   open: (place: number) => void}} hands
   */
  constructor(hands) {
    this.hands = hands;
    /** @type {number[]} */
    this.cards = [];
    /** @type {HTMLElement[]} */
    this.tiles = [];
    /** @type {"grid" | "card"} */
    this.view = "grid";
    this.at = 0;
    this.grid = element("div", "baal-grid", { role: "listbox", "aria-label": "Images to label", "aria-multiselectable": "true" });
    this.card = element("div", "baal-card", { role: "group", tabindex: "0" });
    this.viewport = element("div", "baal-viewport");
    this.pane = element("div", "baal-pane");
    this.viewport.append(this.pane);
    this.caption = element("div", "baal-caption");
    this.card.append(this.viewport, this.caption);
    this.card.hidden = true;
    this.root = element("div", "baal-stage");
    this.root.append(this.grid, this.card);
    this.band = element("div", "baal-band", { "aria-hidden": "true" });
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.across = 0;    // columns, 0 where they must be counted anew
    this.sightOf = -1;  // the row that was in sight
    this.holding = false;  // whether the focus is about to follow
    this.listen();
  }

  /** Build the tiles of a page. @param {number[]} cards */
  show(cards) {
    this.cards = cards;
    this.tiles = cards.map((card, place) => {
      const tile = element("div", "baal-tile", { role: "option", tabindex: "-1", "aria-selected": "false",
        "data-card": String(card), "data-place": String(place) });
      tile.append(element("span", "baal-guess"), element("span", "baal-answer"));
      return tile;
    });
    this.grid.replaceChildren(...this.tiles);
    this.across = 0;
    this.sightOf = -1;
  }

  /** @param {number} place @param {Look} look @param {HTMLImageElement | null} image  it moves to where it is shown */
  paint(place, look, image) {
    const tile = this.tiles[place];
    if (!tile) return;
    if (image && tile.firstChild !== image) tile.prepend(image);
    const key = JSON.stringify(look);
    if (tile.dataset.look === key) return; // writing to the page is what costs
    tile.dataset.look = key;
    const [guess, answer] = /** @type {HTMLElement[]} */ ([...tile.children].slice(-2));
    tile.classList.toggle("baal-broken", Boolean(look.reason));
    if (look.reason) guess.title = look.reason;
    write(guess, look.reason ? `⚠ ${look.reason}` : look.guess || look.camps);
    guess.classList.toggle("baal-differs", look.differs);
    guess.classList.toggle("baal-camps", Boolean(look.camps && !look.guess));
    this.dress(tile, answer, look);
    tile.setAttribute("aria-label", this.spoken(place, look));
  }

  /** The first that is seen of an answer: nothing that has to be laid out. @param {number} place @param {Look} look */
  tint(place, look) {
    const tile = this.tiles[place];
    delete tile.dataset.look;
    this.colour(tile, look);
  }

  /** One image, large. @param {number} place @param {Look} look @param {HTMLImageElement | null} image @param {string} claim */
  paintCard(place, look, image, claim) {
    const shown = this.pane.firstChild;
    if (image && shown !== image) this.pane.replaceChildren(image);
    const reason = look.reason && `⚠ ${look.reason}`;
    if (!image && (shown instanceof HTMLImageElement || this.pane.textContent !== reason)) {
      this.pane.replaceChildren(element("p", "baal-reason", {}, reason));
    }
    if (this.card.dataset.card !== String(this.cards[place])) this.resetZoom();
    this.card.dataset.card = String(this.cards[place]);
    const key = JSON.stringify([look, claim, place]);
    if (this.card.dataset.look === key) return;
    this.card.dataset.look = key;
    const answer = element("span", "baal-answer");
    this.dress(this.card, answer, look);
    const guess = element("span", look.differs ? "baal-guess baal-differs" : "baal-guess", {}, look.guess);
    const where = element("span", "baal-soft", {}, `${place + 1} of ${this.cards.length}`);
    this.caption.replaceChildren(where, answer, guess, element("span", "baal-claim", {}, claim || look.camps));
    this.card.setAttribute("aria-label", `${this.spoken(place, look)}${claim ? `. ${claim}` : ""}`);
  }

  /** @param {HTMLElement} target @param {HTMLElement} answer @param {Look} look */
  dress(target, answer, look) {
    const marks = `${look.flagged ? "⚑ " : ""}${look.noted ? "✎ " : ""}`;
    write(answer, marks + look.answer);
    answer.hidden = !marks && !look.answer;
    this.colour(target, look);
  }

  /** @param {HTMLElement} target @param {Look} look */
  colour(target, look) {
    target.dataset.state = look.state;
    target.classList.toggle("baal-aside", look.state !== "open" && look.hue < 0);
    target.style.setProperty("--baal-hue", String(Math.max(look.hue, 0)));
  }

  /** @param {number} place @param {Look} look */
  spoken(place, look) {
    return [`Image ${place + 1} of ${this.cards.length}`, look.answer || "not labelled", look.reason && `cannot be shown: ${look.reason}`,
      look.camps, look.guess && `model: ${look.guess}`, look.flagged && "flagged", look.noted && "has a note"].filter(Boolean).join(", ");
  }

  /** @param {number} place @param {boolean} held  whether the focus is ours to move @param {boolean=} late  once the eye has its answer:
   * to move it makes the page lay itself out, and the notebook look into it */
  focus(place, held, late = false) {
    const left = this.tiles[this.at];
    this.at = Math.max(0, Math.min(place, this.tiles.length - 1));
    const here = this.tiles[this.at];
    if (left && left !== here) {
      left.tabIndex = -1;
      left.classList.remove("baal-here");
    }
    if (here) {
      here.tabIndex = 0;
      here.classList.add("baal-here");
    }
    if (!held) return;
    const ours = () => this.root.contains(document.activeElement);
    if (!late || !ours()) this.hold();
    else if (!this.holding) {
      this.holding = true;
      afterPaint(() => {
        this.holding = false;
        if (ours()) this.hold(); // else a hand has moved it elsewhere meanwhile
      });
    }
  }

  /** Take the keyboard's focus. */
  hold() {
    const target = this.view === "card" ? this.card : this.tiles[this.at];
    target?.focus({ preventScroll: this.view === "card" || this.inSight(target) });
  }

  /** @param {HTMLElement} target  one row above and below a tile that is in sight are so as well, mostly: no need to measure */
  inSight(target) {
    const row = Math.floor(this.at / this.columns());
    if (this.sightOf === row) return true;
    this.sightOf = row;
    const box = target.getBoundingClientRect();
    return box.top >= 0 && box.bottom <= window.innerHeight;
  }

  columns() {
    if (this.across) return this.across;
    const top = this.tiles[0]?.offsetTop;
    const more = this.tiles.findIndex((tile) => tile.offsetTop !== top);
    this.across = more < 0 ? Math.max(this.tiles.length, 1) : more;
    return this.across;
  }

  /** @param {Set<number>} picked  cards */
  paintPicked(picked) {
    this.tiles.forEach((tile, place) => {
      const on = String(picked.has(this.cards[place]));
      if (tile.getAttribute("aria-selected") !== on) tile.setAttribute("aria-selected", on);
    });
  }

  /** @param {"grid" | "card"} view */
  turnTo(view) {
    this.view = view;
    this.grid.hidden = view !== "grid";
    this.card.hidden = view !== "card";
  }

  // Zoom and pan of the single image

  resetZoom() {
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.applyZoom();
  }

  /** @param {number} factor @param {number=} x @param {number=} y  the point that stays where it is, from the middle */
  zoomBy(factor, x = 0, y = 0) {
    const scale = Math.max(1, Math.min(32, this.zoom.scale * factor)), by = scale / this.zoom.scale;
    this.zoom = scale === 1 ? { scale, x: 0, y: 0 } : { scale, x: x - by * (x - this.zoom.x), y: y - by * (y - this.zoom.y) };
    this.applyZoom();
  }

  /** @param {number} x @param {number} y */
  panBy(x, y) {
    const reach = (this.zoom.scale - 1) / 2, { clientWidth: width, clientHeight: height } = this.viewport;
    /** @param {number} value @param {number} most */
    const within = (value, most) => Math.max(-most, Math.min(most, value));
    this.zoom.x = within(this.zoom.x + x, reach * width);
    this.zoom.y = within(this.zoom.y + y, reach * height);
    this.applyZoom();
  }

  applyZoom() {
    this.pane.style.transform = this.zoom.scale === 1 ? "" : `translate(${this.zoom.x}px, ${this.zoom.y}px) scale(${this.zoom.scale})`;
    this.viewport.dataset.zoom = this.zoom.scale.toFixed(2);
  }

  // Gestures

  listen() {
    const placeOf = (/** @type {Event} */ event) => {
      const tile = event.target instanceof Element ? event.target.closest(".baal-tile") : null;
      return tile instanceof HTMLElement ? Number(tile.dataset.place) : -1;
    };
    /** @type {{x: number, y: number, more: boolean} | null} */
    let start = null;
    let framing = false;
    this.grid.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && event.pointerType !== "touch") start = { x: event.clientX, y: event.clientY, more: event.ctrlKey || event.metaKey };
      framing = false;
    });
    this.grid.addEventListener("pointermove", (event) => {
      if (!start || (!framing && Math.hypot(event.clientX - start.x, event.clientY - start.y) < DRAG)) return;
      if (!framing) {
        framing = true;
        this.grid.setPointerCapture(event.pointerId);
        this.grid.append(this.band);
      }
      const frame = frameOf(start, event), outer = this.grid.getBoundingClientRect();
      Object.assign(this.band.style, { left: `${frame.left - outer.left}px`, top: `${frame.top - outer.top}px`,
        width: `${frame.right - frame.left}px`, height: `${frame.bottom - frame.top}px` });
    });
    this.grid.addEventListener("pointerup", (event) => {
      if (start && framing) {
        this.hands.framed(touched(frameOf(start, event), this.tiles.map((tile) => tile.getBoundingClientRect())), start.more);
        this.band.remove();
      }
      start = null;
    });
    this.grid.addEventListener("pointercancel", () => { start = null; framing = false; this.band.remove(); });
    this.grid.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (place >= 0 && !framing) this.hands.click(place, event);
      framing = false;
    });
    this.grid.addEventListener("dblclick", (event) => {
      const place = placeOf(event);
      if (place >= 0) this.hands.open(place);
    });
    /** @type {{x: number, y: number} | null} */
    let grip = null;
    this.viewport.addEventListener("pointerdown", (event) => {
      grip = { x: event.clientX, y: event.clientY };
      this.viewport.setPointerCapture(event.pointerId);
      this.card.focus({ preventScroll: true });
      event.preventDefault();
    });
    this.viewport.addEventListener("pointermove", (event) => {
      if (!grip || this.zoom.scale === 1) return;
      this.panBy(event.clientX - grip.x, event.clientY - grip.y);
      grip = { x: event.clientX, y: event.clientY };
    });
    for (const end of ["pointerup", "pointercancel"]) this.viewport.addEventListener(end, () => { grip = null; });
    this.viewport.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the plain wheel scrolls the notebook
      event.preventDefault();
      const box = this.viewport.getBoundingClientRect();
      this.zoomBy(Math.exp(-event.deltaY / 200), event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
    }, { passive: false });
  }
}

/** @param {{x: number, y: number}} start @param {PointerEvent} event */
function frameOf(start, event) {
  return {
    left: Math.min(start.x, event.clientX), right: Math.max(start.x, event.clientX),
    top: Math.min(start.y, event.clientY), bottom: Math.max(start.y, event.clientY),
  };
}
