// @ts-check
// The grid: shows what the kernel tells, reports what hands do. It only asks; the kernel only answers.
import { HOTKEYS, actionOf, moved, nextOpen } from "./keys.js";
import { Outbox, overlay } from "./outbox.js";

const TICK = 1000, BUSY_TICK = 300, PATIENCE = 1500, RETRY = 8000, RESEND = 30000;

/** @typedef {{fraction: number, message: string, running: boolean, error: string} | null} Training */
/**
 * @typedef {object} View  what the kernel tells
 * @property {string[]} classes
 * @property {number[]} items
 * @property {number[]} upcoming
 * @property {Record<string, number>} answers
 * @property {number[]} counts
 * @property {string} summary
 * @property {boolean} canUndo
 * @property {boolean} canRedo
 * @property {boolean} canNext
 * @property {boolean} fresh
 * @property {Training} training
 */

/** @param {string} tag @param {string} name @param {Record<string, string>=} attributes @param {string=} text */
function element(tag, name, attributes = {}, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** Write a text only where it is another one. @param {HTMLElement} target @param {string} text */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  /** @type {View | null} */
  let view = null;
  let focus = 0;
  let asked = 0;      // when the unanswered tick was sent
  let gone = false;   // whether the last send failed
  let shown = "";     // the items the tiles were built for
  let gesture = 0;    // counts what hands did
  let undoneAt = -1;  // the gesture that was the last undo or redo
  /** @type {Map<number, string>} */
  const pictures = new Map();
  const wanted = new Set();
  /** @type {HTMLElement[]} */
  let tiles = [];

  const root = element("div", "baal-widget", { role: "group", "aria-label": "Image labelling" });
  const bar = element("div", "baal-bar", { role: "group", "aria-label": "Classes" });
  const grid = element("div", "baal-grid", { role: "listbox", "aria-label": "Images to label" });
  const foot = element("div", "baal-foot");
  const summary = element("div", "baal-summary");
  const status = element("div", "baal-status", { role: "status", "aria-live": "polite" });
  const error = element("div", "baal-error", { role: "alert" });
  error.hidden = true;
  const training = element("div", "baal-training");
  const meter = /** @type {HTMLProgressElement} */ (element("progress", "baal-meter", { max: "1", "aria-label": "Training" }));
  const loss = element("span", "baal-loss");
  root.append(bar, error, grid, status, foot, summary);
  el.append(root);

  /** @param {string} name @param {string} key @param {string} action */
  function control(name, key, action) {
    const button = /** @type {HTMLButtonElement} */ (element("button", `baal-button baal-${action}`, { type: "button" }, name));
    button.append(element("kbd", "baal-key", { "aria-hidden": "true" }, key));
    button.addEventListener("click", () => { act({ do: action }); backToGrid(); });
    return button;
  }
  const skip = control("Skip", "S", "skip");
  const undo = control("Undo", "U", "undo");
  const redo = control("Redo", "⇧U", "redo");
  const next = control("Next images", "⏎", "next");
  const learn = control("Retrain", "R", "learn");
  const cancel = control("Cancel", "", "cancel");
  training.append(learn, meter, loss, cancel);
  foot.append(skip, undo, redo, next, training);
  /** @type {HTMLButtonElement[]} */
  let buttons = [];

  /** @param {object} message */
  function send(message) {
    try {
      model.send(message);
      gone = false;
    } catch {
      gone = outbox.unsure = true;
    }
    tellState();
  }

  /** @type {Storage | undefined} */
  let storage;
  try { storage = window.localStorage; } catch { storage = undefined; }
  const outbox = new Outbox(send, model.get("store"), storage);

  // What hands do

  /** @param {{do: string, value?: number}} action */
  function act(action) {
    if (!view) return;
    const item = view.items[focus];
    switch (action.do) {
      case "label": case "skip":
        if (item === undefined) return;
        outbox.add(action.do, item, action.value);
        paintTile(focus, overlay(view.answers, outbox.pending), new Set([item]));
        mark();
        paintSoon();
        gesture++;
        focusOn(nextOpen(answeredPlaces(), focus));
        say(action.do === "skip" ? "Skipped" : `${view.classes[action.value ?? 0]}`);
        break;
      case "undo": case "redo":
        // what is on its way may be undone too, or be an undo itself
        if (outbox.pending.length || (action.do === "undo" ? view.canUndo : view.canRedo)) {
          outbox.add(action.do);
          undoneAt = ++gesture;
          mark();
        }
        break;
      case "next":
        if (view.canNext) send({ kind: "do", do: "next" });
        break;
      case "learn":
        if (view.training && !view.training.running && !learn.disabled) {
          view.training.running = true; // a second press before the answer is not a second lesson
          send({ kind: "do", do: "learn" });
        }
        break;
      case "cancel":
        if (view.training?.running) send({ kind: "do", do: "cancel" });
        break;
      case "leave": {
        const cell = /** @type {HTMLElement | null} */ (el.closest(".jp-Notebook") ?? el.closest("[tabindex]"));
        /** @type {HTMLElement | null} */ (document.activeElement)?.blur();
        cell?.focus({ preventScroll: true });
      }
    }
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const onButton = event.target instanceof HTMLButtonElement;
    if (event.key === "Tab") return;
    if (onButton && (event.key === "Enter" || event.key === " ")) { event.stopPropagation(); return; }
    const action = actionOf(event, view?.classes.length ?? 0);
    // The notebook must not act on plain keys: "b" would insert a cell. Ctrl+S and its kind stay the notebook's.
    if (action || !(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
    if (!action) return;
    event.preventDefault();
    if (action.do === "move" && onButton) return;
    gesture += Number(action.do === "move");
    if (action.do === "move") focusOn(moved(event.key, focus, tiles.length, columns()));
    else if (!event.repeat) act(action);
  }

  function columns() {
    const top = tiles[0]?.offsetTop;
    const more = tiles.findIndex((tile) => tile.offsetTop !== top);
    return more < 0 ? Math.max(tiles.length, 1) : more;
  }

  function backToGrid() { tiles[focus]?.focus({ preventScroll: true }); }

  /** @param {number} place */
  function focusOn(place) {
    const held = root.contains(document.activeElement);
    const left = tiles[focus];
    focus = Math.max(0, Math.min(place, tiles.length - 1));
    for (const [tile, here] of /** @type {[HTMLElement | undefined, boolean][]} */ ([[left, false], [tiles[focus], true]])) {
      if (!tile) continue;
      tile.tabIndex = here ? 0 : -1;
      tile.setAttribute("aria-selected", String(here));
    }
    if (held) tiles[focus]?.focus({ preventScroll: false });
  }

  function answeredPlaces() {
    if (!view) return [];
    const seen = overlay(view.answers, outbox.pending);
    return view.items.map((item) => seen.has(item));
  }

  // What is shown

  function build() {
    if (!view) return;
    const names = view.classes;
    if (buttons.map((button) => button.dataset.name).join("\n") !== names.join("\n")) {
      buttons = names.map((name, value) => {
        const button = /** @type {HTMLButtonElement} */ (element("button", "baal-button baal-class", { type: "button", "data-name": name }));
        if (HOTKEYS[value]) button.append(element("kbd", "baal-key", { "aria-hidden": "true" }, HOTKEYS[value]));
        button.append(element("span", "baal-name", {}, name), element("span", "baal-count"));
        if (HOTKEYS[value]) button.setAttribute("aria-keyshortcuts", HOTKEYS[value]);
        button.style.setProperty("--baal-hue", `${hue(value)}`);
        button.addEventListener("click", () => { act({ do: "label", value }); backToGrid(); });
        return button;
      });
      bar.replaceChildren(...buttons);
    }
    if (shown !== view.items.join()) {
      shown = view.items.join();
      const kept = view.items.indexOf(Number(tiles[focus]?.dataset.item ?? -1));
      const held = grid.contains(document.activeElement);
      tiles = view.items.map((item, place) => {
        const tile = element("div", "baal-tile", { role: "option", "data-item": String(item), "aria-selected": "false", tabindex: "-1" });
        tile.append(element("img", "baal-image", { alt: "", draggable: "false" }), element("span", "baal-answer"));
        tile.addEventListener("click", () => { focusOn(place); backToGrid(); });
        return tile;
      });
      grid.replaceChildren(...tiles);
      focus = 0;
      focusOn(kept >= 0 ? kept : nextOpen(answeredPlaces(), -1 + tiles.length));
      if (held) backToGrid();
      for (const [item, url] of pictures) {
        if (!view.items.includes(item) && !view.upcoming.includes(item)) { URL.revokeObjectURL(url); pictures.delete(item); }
      }
    }
    fetchPictures();
    paint();
  }

  function paint() {
    if (!view) return;
    const seen = overlay(view.answers, outbox.pending);
    const waits = new Set(outbox.pending.map((op) => op.item));
    tiles.forEach((_, place) => paintTile(place, seen, waits));
    buttons.forEach((button, value) => write(/** @type {HTMLElement} */ (button.lastChild), String(view?.counts[value] ?? 0)));
    const open = openTiles();
    write(summary, view.summary);
    undo.disabled = !view.canUndo && !outbox.pending.length;
    redo.disabled = !view.canRedo;
    next.disabled = !view.canNext;
    next.classList.toggle("baal-call", view.canNext && (open === 0 || view.fresh));
    training.hidden = next.hidden = !view.training;
    if (view.training) {
      const { running, fraction, message } = view.training;
      learn.hidden = running;
      learn.disabled = !view.counts.some((count) => count > 0);
      learn.classList.toggle("baal-call", open === 0 && !view.fresh && !learn.disabled);
      meter.hidden = cancel.hidden = !running;
      meter.value = fraction;
      write(loss, message);
      if (view.training.error) complain(view.training.error);
    }
    root.dataset.ready = String(tiles.length === 0 || view.items.every((item) => pictures.has(item)));
    mark();
    tellState();
  }

  /** @param {number} place @param {Map<number, number>} seen @param {Set<number | undefined>} waits */
  function paintTile(place, seen, waits) {
    const tile = tiles[place];
    if (!view || !tile) return;
    const item = view.items[place], value = seen.get(item), url = pictures.get(item);
    const state = value === undefined ? "open" : waits.has(item) ? "pending" : "saved";
    const look = `${state} ${value} ${url}`;
    if (tile.dataset.look === look) return; // writing to the page is what costs
    tile.dataset.look = look;
    const image = /** @type {HTMLImageElement} */ (tile.firstChild);
    if (url && image.src !== url) { image.src = url; image.onload = () => image.classList.toggle("baal-tiny", image.naturalWidth < 100); }
    const name = value === undefined ? "" : value < 0 ? "skipped" : view.classes[value];
    tile.dataset.state = state;
    tile.classList.toggle("baal-skipped", value === -1);
    tile.style.setProperty("--baal-hue", value === undefined || value < 0 ? "0" : `${hue(value)}`);
    write(/** @type {HTMLElement} */ (tile.lastChild), name);
    tile.setAttribute("aria-label", `Image ${place + 1} of ${tiles.length}, ${name || "not labelled"}`);
  }

  function openTiles() { return tiles.filter((tile) => tile.dataset.state === "open").length; }

  /** What the state amounts to, for styles and for whoever watches from outside: always true at once. */
  function mark() {
    root.dataset.pending = String(outbox.pending.length);
    root.dataset.open = String(openTiles());
  }

  let planned = 0;
  /** Paint once before the next frame, however many answers come in until then. */
  function paintSoon() {
    planned ||= window.setTimeout(() => { planned = 0; paint(); }, 16);
  }

  /** Okabe and Ito's hues, told apart with every common kind of colour vision; the name is always there too.
   * @param {number} value */
  function hue(value) { return [202, 41, 164, 327, 56, 24, 245, 90, 285, 0][value % 10]; }

  let spoken = "";
  /** @param {string} text */
  function say(text) { spoken = text; tellState(); }

  function tellState() {
    const waiting = outbox?.pending.length ?? 0;
    const open = Number(root.dataset.open ?? 0);
    let text = spoken;
    if (gone) text = `The kernel is gone. ${waiting} answers are kept in this browser and will be saved when the cell runs again.`;
    else if (waiting && outbox.waiting() > PATIENCE) text = `The kernel is busy. ${waiting} answers wait here and will be saved when it is free.`;
    else if (view && !view.items.length) text = "Nothing is left to label.";
    else if (view?.fresh && open) text = `The model has learned: press Enter for its new questions, or finish these ${open} first.`;
    else if (view && !open) text = view.training ? "All answered. Enter: next images. R: retrain." : "All answered.";
    else if (spoken) text = `${spoken}. ${open} to go.`;
    write(status, text);
    status.classList.toggle("baal-waiting", gone || (waiting > 0 && outbox.waiting() > PATIENCE));
  }

  /** @param {string} text */
  function complain(text) {
    if (error.dataset.text === text) return;
    error.dataset.text = text;
    const close = element("button", "baal-button", { type: "button", "aria-label": "Dismiss" }, "✕");
    close.addEventListener("click", () => {
      error.hidden = true;
      delete error.dataset.text;
      if (view?.training) view.training.error = "";
      send({ kind: "seen" });
      backToGrid();
    });
    error.replaceChildren(element("span", "", {}, text), close);
    error.hidden = false;
  }

  // What the kernel says

  function fetchPictures() {
    if (!view) return;
    const missing = [...view.items, ...view.upcoming].filter((item) => !pictures.has(item) && !wanted.has(item));
    for (let i = 0; i < missing.length; i += 24) {
      const items = missing.slice(i, i + 24);
      items.forEach((item) => wanted.add(item));
      send({ kind: "pictures", items });
    }
  }

  /** @param {any} message @param {DataView[]} buffers */
  function onMessage(message, buffers) {
    asked = 0;
    gone = false;
    if (message.kind === "pictures") {
      message.items.forEach((/** @type {number} */ item, /** @type {number} */ place) => {
        wanted.delete(item);
        if (pictures.has(item)) return;
        const bytes = buffers[place];
        pictures.set(item, URL.createObjectURL(new Blob([/** @type {any} */ (bytes)], { type: message.types[place] })));
      });
      paintSoon();
      return;
    }
    outbox.done(message.done ?? []);
    if (message.view) {
      const old = view;
      view = message.view;
      if (!old || old.items.join() !== view?.items.join() || old.classes.join("\n") !== view?.classes.join("\n")) build();
      else fetchPictures();
    }
    if (message.held?.length) outbox.unsure = true;
    // look at what was undone, unless the hands are elsewhere by now
    const at = view && message.focus != null && gesture === undoneAt ? view.items.indexOf(message.focus) : -1;
    if (at >= 0) focusOn(at);
    if (view?.fresh && !answeredPlaces().includes(false) && !root.contains(document.activeElement)) {
      send({ kind: "do", do: "next" }); // nobody is at work on the old ones
    }
    if (message.said) say(message.said);
    for (const text of message.errors ?? []) complain(text);
    paintSoon();
  }

  function theme() {
    const light = document.body.dataset.jpThemeLight;
    return light !== undefined ? light === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function hello() {
    wanted.clear();
    send({ kind: "hello", dark: theme() });
    outbox.again();
  }

  let timer = 0;
  function tick() {
    const busy = view?.training?.running ?? false;
    timer = window.setTimeout(tick, busy ? BUSY_TICK : TICK);
    if (document.visibilityState === "hidden") return;
    const now = Date.now();
    if (outbox.pending.length && now - outbox.lastSent > (outbox.unsure ? RETRY : RESEND)) outbox.again();
    if (!asked || now - asked > RETRY) {
      asked = now;
      if (view) send({ kind: "tick", dark: theme() });
      else hello();
    }
    tellState();
  }

  root.addEventListener("keydown", onKey);
  model.on("msg:custom", onMessage);
  hello();
  timer = window.setTimeout(tick, TICK);
  return () => {
    window.clearTimeout(timer);
    window.clearTimeout(planned);
    model.off("msg:custom", onMessage);
    for (const url of pictures.values()) URL.revokeObjectURL(url);
  };
}

export default { render };
