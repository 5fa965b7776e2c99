// @ts-check
// The labelling widget: shows what the kernel tells, reports what hands do. It only asks; the kernel only answers.
// From a key to the next image nothing leaves the page: what follows is here, ranked and decoded.
import { Again, claimText, contestText } from "./again.js";
import { makeControls } from "./controls.js";
import { afterPaint, element, write } from "./dom.js";
import { makeField } from "./finder.js";
import { makeHistory } from "./history.js";
import { actionOf, isDouble, moved, nextOpen } from "./keys.js";
import { Lane } from "./lane.js";
import { PAST, answeredOf, best, latestOf, lookOf, waitingOf } from "./looks.js";
import { Outbox, newId } from "./outbox.js";
import { Pictures } from "./pictures.js";
import { AIDS, Prefs } from "./prefs.js";
import { fillSheet } from "./sheet.js";
import { Stage } from "./stage.js";
import { answerText, standing } from "./status.js";
import { showWhy } from "./why.js";

const TICK = 1000, BUSY_TICK = 300, RETRY = 8000, RESEND = 30000, GATHER = 300;
const PAUSE = 130, LATEST = 500;  // ms between keys that are a pause, and the longest that the surroundings lag behind
const AHEAD = 200;      // pictures kept ready beyond the page
const READY = 4;        // single images kept ready in full

/** @typedef {import("./outbox.js").Value} Value */
/**
 * @typedef {object} Training
 * @property {boolean} running
 * @property {number} fraction
 * @property {string} message
 * @property {string} error
 * @property {number} every  labels after which it retrains by itself, 0 for never
 */
/**
 * @typedef {object} View  what the kernel tells
 * @property {string[]} classes  by number, which each keeps; empty for one merged into another
 * @property {import("./keys.js").Keymap} keys
 * @property {boolean} multi  whether several classes may hold at once
 * @property {boolean} blind  whether guesses are hidden until the answer
 * @property {number[]} page  the cards on the page
 * @property {string} turned  the id of the last turn that `page` knows of
 * @property {number[]} queue  what follows, most wanted first
 * @property {number[]} reviews  cards to look at again
 * @property {number[]} contested  cards of which people do not say the same
 * @property {number} size  cards on a page
 * @property {number} generation  lessons so far
 * @property {Record<string, Value>} answers
 * @property {Record<string, {flag?: boolean, note?: string}>} marks
 * @property {Record<string, [number, number]>} guesses  class and probability, where they may be told
 * @property {Record<string, {said: Value, guess: number, share: number}>} claims  what the model disputes
 * @property {Record<string, import("./again.js").Contest>} contests  what people say of them
 * @property {[number, Value][]} recent  the last answers, newest first
 * @property {number[]} counts
 * @property {string} summary
 * @property {string} advice  what speaks for stopping
 * @property {boolean} canUndo
 * @property {boolean} canRedo
 * @property {boolean} canAdd  whether classes may be added
 * @property {boolean | null} beside  whether answers are saved while a cell runs; null where it is not known yet
 * @property {Training | null} training
 */

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  /** @type {View | null} */
  let view = null;
  /** @type {number[]} */
  let page = [];
  const lane = new Lane();
  let turn = { id: "", at: 0 };   // the turn that the kernel has not heard of yet
  let furthest = 0;               // how far the single images were looked at
  let asked = 0;                  // when the unanswered tick was sent
  let gone = false;               // whether the last send failed
  let gesture = 0;                // counts what hands did
  let undoneAt = -1;              // the gesture that was the last undo or redo
  let arrived = -1;               // the card under the hands
  let arrivedAt = performance.now();  // when it came there
  let anchor = 0;
  let via = "key";
  const lastKey = { key: "", at: 0 };
  /** @type {Set<number>} */
  const picked = new Set();
  /** @type {Set<number>} cards whose guess was shown before the answer */
  const revealed = new Set();
  /** @type {Map<number, import("./why.js").Why | null>} */
  const whys = new Map();

  const root = element("div", "baal-widget", { role: "group", "aria-label": "Image labelling" });
  const error = element("div", "baal-error", { role: "alert" });
  const desk = element("div", "baal-desk");
  const status = element("div", "baal-status", { role: "status", "aria-live": "polite" });
  const whyPanel = element("div", "baal-why", { role: "region", "aria-label": "Why this image" });
  const sheet = element("div", "baal-sheet", { role: "dialog", "aria-label": "Keys" });
  error.hidden = whyPanel.hidden = sheet.hidden = true;
  const controls = makeControls({
    press(action) {
      via = "click";
      act(action);
      via = "key";
      if (field.root.hidden && sheet.hidden) stage.hold();
    },
    tell: send,
    hold: () => stage.hold(),
  });
  const history = makeHistory((card) => {
    if (!page.includes(card)) { again.queue = ""; setPage([card, ...page], true); }
    goTo(page.indexOf(card), true);
  });

  const field = makeField(() => stage.hold());
  const stage = new Stage({
    click(place, event) {
      if (event.shiftKey) range(place);
      else if (event.ctrlKey || event.metaKey) pick(place);
      else { picked.clear(); stage.paintPicked(picked); anchor = place; }
      goTo(place, true);
    },
    framed(places, more) {
      if (!more) picked.clear();
      for (const place of places) picked.add(page[place]);
      stage.paintPicked(picked);
      if (places.length) goTo(places[0], true);
      say(`${picked.size} selected`);
    },
    open(place) { goTo(place, true); turnTo("card"); },
  });
  const again = new Again((value) => {
    via = "click";
    settle(value);
    via = "key";
    stage.hold();
  });
  desk.append(stage.root, again.panel, whyPanel);

  root.append(controls.bar, field.root, controls.tools, error, desk, status, controls.foot, history.root, controls.summary, controls.advice, sheet);
  el.append(root);

  /** @type {Storage | undefined} */
  let storage;
  try { storage = window.localStorage; } catch { storage = undefined; }
  const prefs = new Prefs(storage);
  const outbox = new Outbox(send, model.get("store"), storage, soon);
  const pictures = new Pictures(send, () => { layLane(); paintSoon(); });

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

  /** One answer goes at once; a rush of them goes together, since each message costs the page a frame. @param {() => void} work */
  function soon(work) {
    const wait = outbox.lastSent + GATHER - Date.now();
    if (wait > 0 && wait <= GATHER && document.visibilityState !== "hidden") window.setTimeout(work, wait);
    else afterPaint(work);
  }

  // What hands do

  /** @param {import("./keys.js").Action} action */
  function act(action) {
    if (!view) return;
    const card = page[stage.at];
    switch (action.do) {
      case "label": case "skip": case "unsure":
        if (card === undefined) break;
        if (action.do !== "label" && view.contests[card]) passOver();
        else answer(action.do, action.value);
        break;
      case "undo": case "redo":
        if (action.do === "undo" && again.passes.length) { openAgain(again.takeBack()); break; }
        // what is on its way may be undone too, or be an undo itself
        if (outbox.pending.length || (action.do === "undo" ? view.canUndo : view.canRedo)) {
          outbox.add(action.do);
          undoneAt = ++gesture;
          mark();
        }
        break;
      case "next":
        if (card !== undefined && view.contests[card] && !answered().has(card)) settle(view.contests[card].suggested);
        else if (again.queue && card !== undefined && !answered().has(card)) keep(card);
        else if (view.multi && card !== undefined && !answered().has(card)) answer("label", undefined, []);
        else if (view.multi && openPlaces().length) moveOn();
        else turnWhenSure();
        break;
      case "confirm": takeGuess(card); break;
      case "guess": if (card !== undefined) reveal(card); break;
      case "why":
        prefs.why = !prefs.why;
        paintWhy();
        paintSoon();
        break;
      case "view": turnTo(stage.view === "grid" ? "card" : "grid"); break;
      case "aid":
        prefs.nextAid();
        prefs.apply(root);
        say(prefs.aid ? `Contrast aid: ${AIDS[prefs.aid]}. Display only` : "Contrast aid off");
        break;
      case "larger": case "smaller": resize(action.do === "larger" ? 1 : -1); break;
      case "flag": if (card !== undefined) setFlag(card); break;
      case "note": if (card !== undefined) writeNote(card); break;
      case "find": openFinder(); break;
      case "again": lookAgain("reviews", "The model disputes none of your labels"); break;
      case "settle": lookAgain("contested", "There is nothing that people disagree on"); break;
      case "pick": if (stage.view === "grid" && card !== undefined) { pick(stage.at); say(`${picked.size} selected`); } break;
      case "all":
        for (const one of page) picked.add(one);
        stage.paintPicked(picked);
        say(`${picked.size} selected`);
        break;
      case "learn":
        if (view.training && canLearn()) {
          view.training.running = true; // a second press before the answer is not a second lesson
          outbox.flush(); // it learns from all that was said before
          send({ kind: "do", do: "learn" });
        }
        break;
      case "cancel":
        if (view.training?.running) send({ kind: "do", do: "cancel" });
        break;
      case "export": send({ kind: "do", do: "export" }); break;
      case "keys":
        sheet.hidden = !sheet.hidden;
        if (sheet.hidden) stage.hold();
        else fillSheet(sheet, view.classes, view.keys, prefs, () => act({ do: "keys" }));
        break;
      case "leave": leave();
    }
  }

  /** Whether there is something to learn from, on its way or there. */
  function canLearn() {
    const labelled = view?.counts.some((count) => count > 0) || outbox.pending.some((op) => op.op === "label");
    return Boolean(labelled && view?.training && !view.training.running);
  }

  function leave() {
    if (!sheet.hidden) { sheet.hidden = true; stage.hold(); return; }
    if (picked.size) { picked.clear(); stage.paintPicked(picked); say("Nothing selected"); return; }
    const cell = /** @type {HTMLElement | null} */ (el.closest(".jp-Notebook") ?? el.closest("[tabindex]"));
    /** @type {HTMLElement | null} */ (document.activeElement)?.blur();
    cell?.focus({ preventScroll: true });
  }

  /** Answer what is selected, or what is under the hands. @param {string} op @param {number=} value @param {number[]=} values */
  function answer(op, value, values) {
    if (!view) return;
    const cards = picked.size ? page.filter((card) => picked.has(card)) : [page[stage.at]];
    if (!cards.every((card) => pictures.of(card))) { say("The image is still on its way"); return; } // nobody has seen it
    const now = performance.now(), group = cards.length > 1 ? newId() : undefined;
    const seen = answered();
    for (const card of cards) {
      const about = { via: group ? "bulk" : via, view: stage.view, ms: Math.round(now - arrivedAt), guess: revealed.has(card) || !view.blind ? "shown" : "hidden" };
      outbox.add(op, { card, value: view.multi && op === "label" ? values ?? toggled(seen.get(card), value) : value, group, about });
    }
    for (const card of cards) lane.handled.add(card);
    picked.clear();
    again.passes = [];
    gesture++;
    if (group) stage.paintPicked(picked);
    showAnswered(cards);
    mark();
    if (!view.multi || op !== "label" || values) moveOn();
    paintSoon();
    say(`${cards.length > 1 ? `${cards.length} images: ` : ""}${op === "skip" ? "Skipped" : op === "unsure" ? "Set aside as unsure" : again.queue === "contested" ? "Settled: " : ""}${op === "label" ? answerText(answered().get(cards[0]), view.classes) : ""}`);
  }

  /** @param {Value | undefined} before @param {number | undefined} value */
  function toggled(before, value) {
    const held = Array.isArray(before) ? before : [];
    if (value === undefined) return held;
    return held.includes(value) ? held.filter((one) => one !== value) : [...held, value].sort((a, b) => a - b);
  }

  function moveOn() {
    const open = openPlaces();
    if (open.length) goTo(nextOpen(isAnswered(), stage.at));
    else if (stage.view === "card") turnPage();
  }

  /** Tell the eye at once, by colour, and write the names in the next frame: text makes the page lay itself out. @param {number[]} cards */
  function showAnswered(cards) {
    if (stage.view === "card") { paintCard(); return; }
    const seen = answered(), waits = waitingOf(outbox.pending);
    for (const card of cards) stage.tint(page.indexOf(card), look(card, seen, waits));
    afterPaint(() => paintPlaces(cards.flatMap((card) => (page.includes(card) ? [page.indexOf(card)] : []))));
  }

  /** @param {number} card */
  function keep(card) {
    outbox.add("keep", { card, about: { via: "key", view: stage.view, ms: Math.round(performance.now() - arrivedAt), guess: "shown" } });
    paintPlaces([page.indexOf(card)]);
    moveOn();
    paintSoon();
    say("Kept");
  }

  /** Settle what people disagree on. @param {Value | null} value */
  function settle(value) {
    if (value === null) say("Nothing is suggested: a class settles it");
    else if (Array.isArray(value)) answer("label", undefined, value);
    else answer("label", value);
  }

  /** Leave what people disagree on for later. It stays as it is, so the kernel is not told. */
  function passOver() {
    const cards = picked.size ? page.filter((card) => picked.has(card)) : [page[stage.at]];
    again.pass(cards);
    picked.clear();
    stage.paintPicked(picked);
    gesture++;
    paintPlaces(cards.map((card) => page.indexOf(card)));
    mark();
    moveOn();
    say("Left for later");
  }

  /** @param {number | undefined} card */
  function openAgain(card) {
    gesture++;
    const place = page.indexOf(card ?? -1);
    if (place >= 0) { paintPlaces([place]); goTo(place); }
    mark();
    say("Open again");
  }

  /** @param {number | undefined} card */
  function takeGuess(card) {
    if (card === undefined || !view) return;
    if (view.contests[card]) { settle(view.contests[card].suggested); return; }
    const told = view.claims[card] ? view.claims[card].guess : view.guesses[card]?.[0] ?? best(whys.get(card));
    if (told === undefined) { reveal(card); return; } // first it must be seen
    revealed.add(card);
    via = "confirm";
    answer("label", told, view.multi ? [told] : undefined);
    via = "key";
  }

  /** Show the guess of a card that has no answer yet: the journal will say so. @param {number} card */
  function reveal(card) {
    if (!answered().has(card)) revealed.add(card);
    if (whys.has(card)) { paintSoon(); if (whys.get(card) === null) say("The model has no guess yet"); }
    else send({ kind: "why", card });
  }

  /** @param {number} card */
  function setFlag(card) {
    const marks = view?.marks[card] ?? {};
    outbox.add("flag", { card, on: !marks.flag });
    if (view) view.marks[card] = { ...marks, flag: !marks.flag };
    say(marks.flag ? "Flag removed" : "Flagged");
    paintSoon();
  }

  /** @param {number} card */
  function writeNote(card) {
    const marks = view?.marks[card] ?? {};
    field.ask("Note", marks.note ?? "", 10_000, (text) => {
      outbox.add("note", { card, text });
      if (view) view.marks[card] = { ...marks, note: text };
      say(text ? "Note kept" : "Note removed");
      paintSoon();
    });
  }

  function openFinder() {
    if (!view) return;
    const recent = [...new Set(view.recent.flatMap(([, value]) => value).filter((value) => value >= 0))];
    const add = view.canAdd ? (/** @type {string} */ name) => { outbox.add("class", { text: name }); say(`Class ${name} added`); } : null;
    field.find(view.classes, recent, (value) => { via = "click"; act({ do: "label", value }); via = "key"; }, add);
  }

  /** @param {number} value */
  function renameClass(value) {
    if (!view?.canAdd) return;
    const old = view.classes[value];
    field.ask(`New name for ${old}`, old, 200, (text) => {
      if (view?.classes.includes(text) && text !== old) mergeClass(value, text);
      else if (text && text !== old) outbox.add("rename", { value, text });
    });
  }

  /** @param {number} value @param {string} into */
  function mergeClass(value, into) {
    if (!view) return;
    const old = view.classes[value], n = view.counts[value] ?? 0, labels = `${n.toLocaleString()} label${n === 1 ? "" : "s"}`;
    field.sure(`There is a class ${into}. Make ${old} part of it? Undo does not take that back.`,
      `Yes, ${labels} of ${old} become ${into}`, `No, keep both`, () => {
        outbox.add("merge", { value, text: into });
        say(`${old} is ${into} now, ${labels}`);
      });
  }

  /** @param {import("./again.js").Queue} queue @param {string} nothing  what to say where there is none */
  function lookAgain(queue, nothing) {
    if (!view) return;
    const was = again.queue, cards = again.toggle(queue, view);
    if (cards.length) setPage(cards, true);
    else if (was) turnPage();
    else say(nothing);
  }

  /** Images without an answer are left for later only when that is meant. */
  function turnWhenSure() {
    const open = openPlaces().length;
    if (open && !again.queue && sureAt !== gesture) {
      sureAt = ++gesture;
      say(`${open} images have no answer: once more to leave them for later`);
    } else turnPage();
  }
  let sureAt = -1;

  /** Put what follows under the hands. The kernel is told, not asked. */
  function turnPage() {
    if (!view) return;
    const seen = answered();
    if (again.queue) {
      const left = again.left(view, seen, page);
      if (left.length) { setPage(left, true); return; }
      again.queue = "";
    }
    const rest = following(seen);
    if (rest.length) setPage(rest.slice(0, view.size), true);
    else if (openPlaces().length) goTo(nextOpen(isAnswered(), stage.at));
    else { send({ kind: "do", do: "more" }); say("Waiting for more images"); }
  }

  /** @param {Map<number, Value>} seen */
  function following(seen) { return lane.following(seen, page); }

  /** @param {number[]} cards @param {boolean} own  whether hands turned it, and the kernel does not know yet
   * @param {number=} at  the place to be at */
  function setPage(cards, own, at) {
    const held = root.contains(document.activeElement) && !(document.activeElement instanceof HTMLInputElement);
    const card = page[stage.at];
    page = cards;
    if (own) {
      turn = { id: newId(), at: Date.now() };
      send({ kind: "turn", id: turn.id, cards: page });
    }
    else if (view) again.follow(page, view);
    picked.clear();
    again.passes = [];
    anchor = 0;
    stage.show(page);
    const kept = own ? -1 : page.indexOf(card);
    stage.at = at ?? (kept >= 0 ? kept : openPlaces()[0] ?? 0);
    furthest = 0;
    paintAll();
    goTo(stage.at, held);
    askForPictures();
  }

  /** @param {"grid" | "card"} to */
  function turnTo(to) {
    const held = root.contains(document.activeElement);
    prefs.view = to;
    prefs.keep();
    stage.turnTo(to);
    stage.across = 0;
    furthest = stage.at;
    paintAll();
    if (held) stage.hold();
  }

  /** @param {number} step */
  function resize(step) {
    if (stage.view === "card") { stage.zoomBy(step > 0 ? 1.5 : 1 / 1.5); return; }
    prefs.resize(step);
    prefs.apply(root);
    stage.across = 0;
  }

  /** @param {number} place */
  function pick(place) {
    const card = page[place];
    if (!picked.delete(card)) picked.add(card);
    anchor = place;
    stage.paintPicked(picked);
  }

  /** @param {number} place */
  function range(place) {
    picked.clear();
    for (let at = Math.min(anchor, place); at <= Math.max(anchor, place); at++) picked.add(page[at]);
    stage.paintPicked(picked);
    say(`${picked.size} selected`);
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (event.key === "Tab" || !view) return;
    const inList = event.target instanceof HTMLSelectElement && !event.ctrlKey && !event.metaKey && event.key !== "Escape";
    const onControl = event.target instanceof HTMLButtonElement || event.target instanceof HTMLInputElement;
    if (event.key === "F2" && event.target instanceof HTMLElement && event.target.dataset.value) {
      event.preventDefault();
      event.stopPropagation();
      renameClass(Number(event.target.dataset.value));
      return;
    }
    const inSheet = event.target instanceof Element && sheet.contains(event.target);
    if (inList || onControl && (["Enter", " "].includes(event.key) || event.key.startsWith("Arrow"))) { event.stopPropagation(); return; }
    const action = actionOf(event, view.keys);
    // The notebook must not act on plain keys: "b" would insert a cell. Ctrl+S and its kind stay the notebook's.
    if (action || !(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
    if (!action || (inSheet && !["leave", "keys"].includes(action.do))) return;
    event.preventDefault();
    if (action.do === "move") { move(event); return; }
    if (isDouble(event, lastKey, prefs.guard)) return;
    keyAt = performance.now();
    act(action);
  }

  /** Notebook 7 hears keys before we do: mark, where the key is, which are ours. @param {KeyboardEvent} event */
  function claim(event) {
    if (!(event.target instanceof Element) || !root.contains(event.target)) return;
    const chord = event.ctrlKey || event.metaKey || event.altKey;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !chord || (view !== null && actionOf(event, view.keys) !== null));
  }

  /** @param {KeyboardEvent} event */
  function move(event) {
    gesture++;
    if (stage.view === "card") {
      if (event.shiftKey && stage.zoom.scale > 1) {
        const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key] ?? [0, 0];
        stage.panBy(step[0], step[1]);
      } else goTo(moved(event.key, stage.at, page.length, 1, 10));
      return;
    }
    const place = moved(event.key, stage.at, page.length, stage.columns());
    goTo(place);
    if (event.shiftKey) range(place); else anchor = place;
  }

  /** @param {number} place @param {boolean=} hold */
  function goTo(place, hold) {
    stage.focus(place, hold ?? root.contains(document.activeElement), hold === undefined);
    if (page[stage.at] !== arrived) { arrived = page[stage.at]; arrivedAt = performance.now(); }
    furthest = Math.max(furthest, stage.at);
    if (stage.view === "card") paintCard();
    if (again.queue) paintSaid();
    if (prefs.why) paintWhy();
  }

  function answered() { return answeredOf(view, outbox.pending, again.passed); }

  function isAnswered() {
    const seen = answered();
    return page.map((card) => seen.has(card));
  }

  function openPlaces() { return isAnswered().flatMap((done, place) => (done ? [] : [place])); }

  // What is shown

  /** @param {number} card @param {Map<number, Value>} seen @param {Set<number | undefined>} waits */
  function look(card, seen, waits) {
    const asked = revealed.has(card) ? whys.get(card) : undefined, reason = pictures.of(card)?.reason ?? "";
    return lookOf(/** @type {View} */ (view), card, seen.get(card), { waits: waits.has(card), reason, asked });
  }

  /** @param {number[]} places */
  function paintPlaces(places) {
    if (stage.view === "card") { paintCard(); return; } // the tiles are painted when they are turned to
    const seen = answered(), waits = waitingOf(outbox.pending);
    for (const place of places) stage.paint(place, look(page[place], seen, waits), pictures.of(page[place])?.image ?? null);
  }

  function paintCard() {
    const card = page[stage.at];
    if (!view || card === undefined) return;
    const text = view.claims[card] ? claimText(view.claims[card], view.classes) : "";
    stage.paintCard(stage.at, look(card, answered(), waitingOf(outbox.pending)), pictures.of(card, true)?.image ?? null, text);
    afterPaint(() => {
      pictures.askLarge([...page.slice(stage.at, stage.at + READY), ...following(answered()).slice(0, READY)].slice(0, READY));
    });
  }

  function paintAll() {
    if (!view) return;
    paintPlaces(page.map((_, place) => place));
    paintSaid();
    if (prefs.why) paintWhy();
  }

  function paintSaid() {
    if (view) again.paint(view, page[stage.at], again.queue ? answered().get(page[stage.at]) : undefined);
  }

  function paintControls() {
    if (!view) return;
    const seen = answered();
    controls.paint(view, { open: openPlaces().length, rest: following(seen).length, queue: again.queue, waiting: outbox.pending.length + again.passes.length > 0,
      value: seen.get(page[stage.at]), shows: stage.view, aid: prefs.aid, why: prefs.why });
  }

  function paint() {
    if (!view) return;
    const { classes } = view;
    paintAll();
    paintControls();
    history.paint(latestOf(view, outbox.pending).map(([card, value]) => ({ card, text: answerText(value, classes), url: pictures.of(card)?.url ?? "" })));
    if (view.training?.error) complain(view.training.error);
    root.dataset.ready = String(page.every((card) => pictures.of(card)));
    root.dataset.generation = String(view.generation);
    root.dataset.ahead = String(view.queue.filter((card) => pictures.of(card)).length);
    mark();
    tellState();
  }

  function paintWhy() {
    whyPanel.hidden = !prefs.why || !view?.training;
    const card = page[stage.at];
    if (whyPanel.hidden || card === undefined || !view) return;
    if (!whys.has(card)) {
      window.clearTimeout(whyTimer);
      whyTimer = window.setTimeout(() => { if (page[stage.at] === card && prefs.why) reveal(card); }, 60);
      return;
    }
    if (!answered().has(card)) revealed.add(card);
    const known = whys.get(card) ?? null;
    pictures.ask((known?.neighbours ?? []).map((near) => near.card));
    const shown = JSON.stringify([card, known?.generation, (known?.neighbours ?? []).map((near) => Boolean(pictures.of(near.card)?.url))]);
    if (whyPanel.dataset.look === shown) return;
    whyPanel.dataset.look = shown;
    showWhy(whyPanel, known, view.classes, (one) => pictures.of(one)?.url);
  }
  let whyTimer = 0;

  /** What the state amounts to, for styles and for whoever watches from outside: always true at once. */
  function mark() {
    root.dataset.pending = String(outbox.pending.length);
    root.dataset.open = String(openPlaces().length);
  }

  let planned = 0, plannedAt = 0, keyAt = -Infinity;
  /** Paint what surrounds the images once, when the hands pause: between two quick keys only the images change. */
  function paintSoon() {
    const now = performance.now();
    if (!planned) plannedAt = now;
    window.clearTimeout(planned);
    const wait = now - keyAt < PAUSE ? Math.min(PAUSE, plannedAt + LATEST - now) : 16;
    planned = window.setTimeout(() => { planned = 0; paint(); }, Math.max(0, wait));
  }

  let spoken = "";
  /** @param {string} text */
  function say(text) { spoken = text; paintSoon(); }

  function tellState() {
    if (!view && !gone) return;
    const waits = outbox.pending.length, seen = answered(), card = page[stage.at];
    const contest = view && !seen.has(card) ? view.contests[card] : undefined;
    const { text, warns } = standing({ spoken, gone, waits, since: outbox.waiting(), empty: !page.length, queue: again.queue,
      open: Number(root.dataset.open ?? 0), rest: view ? following(seen).length : 0, canLearn: canLearn(),
      left: view ? again.left(view, seen, page).length : 0,
      said: view && contest ? contestText(contest, view.classes) : "" });
    write(status, text);
    status.classList.toggle("baal-waiting", warns);
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
      stage.hold();
    });
    error.replaceChildren(element("span", "", {}, text), close);
    error.hidden = false;
  }

  // What the kernel says

  function askForPictures() {
    if (!view) return;
    const ahead = [...view.queue.slice(0, AHEAD), ...view.reviews.slice(0, view.size), ...view.contested.slice(0, view.size)], past = view.recent.slice(0, PAST).map(([card]) => card);
    const wanted = [...page, ...ahead, ...past];
    pictures.keepOnly(new Set(wanted));
    pictures.ask(wanted);
  }

  /** @param {any} message @param {DataView[]} buffers */
  function onMessage(message, buffers) {
    asked = 0;
    gone = false;
    pictures.heard = Date.now();
    if (message.kind === "pictures") {
      pictures.take(message, buffers);
      return;
    }
    if (message.kind === "why") {
      if (message.generation === view?.generation) whys.set(message.card, message.why);
      if (message.why === null && !prefs.why) say("The model has no guess yet");
      paintSoon();
      return;
    }
    const kept = new Set(outbox.done(message.done ?? []));
    if (message.view) adopt(message.view);
    const places = page.flatMap((card, place) => (kept.has(card) ? [place] : []));
    if (places.length) paintPlaces(places); // what is on disk is ticked at once, what surrounds it in the next pause
    if (message.held?.length) outbox.unsure = true;
    // look at what was undone, unless the hands are elsewhere by now
    if (message.focus != null) lane.handled.delete(message.focus);
    const at = message.focus != null && gesture === undoneAt ? page.indexOf(message.focus) : -1;
    if (at >= 0) goTo(at);
    if (message.said) say(message.said);
    for (const text of message.errors ?? []) complain(text);
    paintSoon();
  }

  /** @param {View} fresh */
  function adopt(fresh) {
    const old = view;
    view = fresh;
    if (old && old.generation !== fresh.generation) whys.clear();
    if (turn.id && fresh.turned === turn.id) turn = { id: "", at: 0 };
    if (!turn.id && fresh.page.join() !== page.join()) setPage(fresh.page, false);
    askForPictures();
    layLane();
    // nobody is at work on what is all answered, or nothing was there yet
    if (!turn.id && !openPlaces().length && following(answered()).length && (!page.length || !root.contains(document.activeElement) && old?.generation !== fresh.generation)) turnPage();
  }

  function layLane() {
    if (view && lane.lay(view, (card) => Boolean(pictures.of(card)), !outbox.pending.length)) rankAnew();
  }

  /** The model has learned: what nobody has seen yet gives way to what it asks for now. */
  function rankAnew() {
    if (again.queue) return;
    const seen = answered();
    if (stage.view === "card") {
      const kept = page.filter((card, place) => place <= furthest || seen.has(card));
      const more = following(seen).slice(0, Math.max(0, (view?.size ?? 0) - kept.length));
      if (more.length) replaceAhead([...kept, ...more]);
    }
    say("The model has learned: what follows is ranked anew");
  }

  /** Change what lies ahead, not what is under the hands. @param {number[]} cards */
  function replaceAhead(cards) {
    const far = furthest;
    setPage(cards, true, stage.at);
    furthest = far;
  }

  function theme() {
    const light = document.body.dataset.jpThemeLight;
    return light !== undefined ? light === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function hello() {
    pictures.forgetWanted();
    send({ kind: "hello", dark: theme() });
    outbox.again();
  }

  let timer = 0;
  function tick() {
    const busy = view?.training?.running ?? false;
    timer = window.setTimeout(tick, busy ? BUSY_TICK : TICK);
    if (document.visibilityState === "hidden") return;
    const now = Date.now();
    pictures.pump(); // what was lost is asked for again
    if (outbox.pending.length && now - outbox.lastSent > (outbox.unsure ? RETRY : RESEND)) outbox.again();
    if (turn.id && now - turn.at > RETRY) {
      turn.at = now;
      send({ kind: "turn", id: turn.id, cards: page });
    }
    if (!asked || now - asked > RETRY) {
      asked = now;
      if (view) send({ kind: "tick", dark: theme() });
      else hello();
    }
    tellState();
  }

  const watcher = new ResizeObserver(() => { stage.across = 0; });
  watcher.observe(root);
  root.addEventListener("keydown", onKey);
  window.addEventListener("keydown", claim, true);
  model.on("msg:custom", onMessage);
  stage.turnTo(prefs.view);
  prefs.apply(root);
  hello();
  timer = window.setTimeout(tick, TICK);
  return () => {
    for (const one of [timer, planned, whyTimer]) window.clearTimeout(one);
    model.off("msg:custom", onMessage);
    window.removeEventListener("keydown", claim, true);
    watcher.disconnect();
    outbox.flush();
    pictures.close();
  };
}

export default { render };
