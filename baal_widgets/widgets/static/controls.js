// @ts-check
// Buttons, meters and lines of text around the images. They show how things stand and pass presses on.
import { button, element, hue, keycap, write } from "./dom.js";
import { AIDS } from "./prefs.js";

const BARE = 24;  // classes shown as buttons; the others are found by name
const EVERY = [0, 10, 24, 50, 100, 250];

/** @typedef {import("./grid.js").View} View */
/**
 * @typedef {object} Standing  how things stand beside what the kernel tells
 * @property {number} open  images of the page without an answer
 * @property {number} rest  images that follow
 * @property {import("./again.js").Queue} queue  the second look that is open
 * @property {boolean} waiting  whether answers are on their way
 * @property {import("./outbox.js").Value | undefined} value  the answer of the card under the hands
 * @property {"grid" | "card"} shows
 * @property {string} aid
 * @property {boolean} why
 */

/**
 * @param {{press: (action: import("./keys.js").Action) => void, tell: (message: object) => void, hold: () => void}} hands
 */
export function makeControls({ press, tell, hold }) {
  const bar = element("div", "baal-bar", { role: "group", "aria-label": "Classes" });
  const tools = element("div", "baal-tools", { role: "group", "aria-label": "View" });
  const foot = element("div", "baal-foot", { role: "group", "aria-label": "Answer" });
  const training = element("div", "baal-training", { role: "group", "aria-label": "Model" });
  const summary = element("div", "baal-summary");
  const advice = element("div", "baal-advice", { role: "note" });
  const badge = element("span", "baal-badge");

  /** @param {string} name @param {string} action @param {string=} style */
  function control(name, action, style = "") {
    const made = button(name, "", style, () => press({ do: action }));
    made.dataset.command = action;
    return made;
  }
  const undo = control("Undo", "undo"), redo = control("Redo", "redo"), next = control("Next images", "next");
  const learn = control("Retrain", "learn"), cancel = control("Cancel", "cancel"), find = control("Find", "find");
  const view = control("Single image", "view"), aid = control("Contrast", "aid"), again = control("Look again", "again");
  const settle = control("Disagreements", "settle");
  const why = control("Why?", "why"), guess = control("Guess", "guess"), confirm = control("Take guess", "confirm");
  const smaller = control("−", "smaller", "baal-small"), larger = control("+", "larger", "baal-small");
  const out = control("Export", "export");
  smaller.setAttribute("aria-label", "Smaller");
  larger.setAttribute("aria-label", "Larger");
  const meter = /** @type {HTMLProgressElement} */ (element("progress", "baal-meter", { max: "1", "aria-label": "Training" }));
  const loss = element("span", "baal-loss");
  const every = /** @type {HTMLSelectElement} */ (element("select", "baal-select", { "aria-label": "Retrain by itself" }));
  for (const n of EVERY) every.append(element("option", "", { value: String(n) }, n ? `after ${n} labels` : "when asked"));
  let byKey = false; // a list changes with every key: it must not lose the keyboard between two
  every.addEventListener("keydown", () => { byKey = true; });
  every.addEventListener("pointerdown", () => { byKey = false; });
  every.addEventListener("change", () => { tell({ kind: "do", do: "every", n: Number(every.value) }); if (!byKey) hold(); });
  const blind = /** @type {HTMLInputElement} */ (element("input", "", { type: "checkbox" }));
  const blindLabel = element("label", "baal-check");
  blindLabel.append(blind, "hide guesses until I answer");
  blind.addEventListener("change", () => { tell({ kind: "do", do: "blind", on: blind.checked }); hold(); });
  tools.append(view, smaller, larger, aid, badge, why, guess, confirm, again, settle, blindLabel, control("Keys", "keys"), out);
  training.append(learn, every, meter, loss, cancel);
  foot.append(control("Skip", "skip"), control("Don't know", "unsure"), control("Flag", "flag"), control("Note", "note"),
    undo, redo, next, training);
  /** @type {HTMLButtonElement[]} */
  let classes = [];

  /** @param {View} told */
  function build(told) {
    const named = JSON.stringify([told.classes, told.keys, told.canAdd]);
    if (bar.dataset.named === named) return;
    bar.dataset.named = named;
    const there = told.classes.flatMap((name, value) => (name ? [{ name, value }] : []));
    classes = there.slice(0, BARE).map(({ name, value }) => {
      const made = button(name, told.keys.classes[value], "baal-class", () => press({ do: "label", value }));
      made.dataset.value = String(value);
      made.style.setProperty("--baal-hue", `${hue(value)}`);
      made.append(element("span", "baal-count"));
      return made;
    });
    const many = there.length > BARE;
    bar.replaceChildren(...classes, ...(many || told.canAdd ? [find] : []));
    write(/** @type {Element} */ (find.firstChild), many ? `Find (${there.length} classes)` : "Find or add");
    for (const part of [bar, tools, foot]) {
      for (const made of /** @type {NodeListOf<HTMLButtonElement>} */ (part.querySelectorAll("[data-command]"))) relabel(made, told.keys);
    }
  }

  /** @param {HTMLButtonElement} made @param {import("./keys.js").Keymap} keys */
  function relabel(made, keys) {
    const command = made.dataset.command ?? "", shifted = command === "redo";
    const key = shifted ? keys.commands.undo : keys.commands[command];
    made.querySelector("kbd")?.remove();
    if (!key || made === smaller || made === larger) return;
    made.append(keycap(shifted ? `⇧${key.toUpperCase()}` : key));
    made.setAttribute("aria-keyshortcuts", shifted ? `Shift+${key}` : key);
  }

  /** @param {View} told @param {Standing} now */
  function paint(told, now) {
    build(told);
    classes.forEach((made) => {
      const at = Number(made.dataset.value);
      write(/** @type {HTMLElement} */ (made.lastChild), String(told.counts[at] ?? 0));
      pressed(made, Array.isArray(now.value) ? now.value.includes(at) : now.value === at);
    });
    const where = { true: "answers are saved also while a cell runs", false: "while a cell runs, answers wait in this browser", null: "" };
    write(summary, [told.summary, where[/** @type {"true"} */ (String(told.beside))]].filter(Boolean).join(" · "));
    write(advice, told.advice);
    undo.disabled = !told.canUndo && !now.waiting;
    redo.disabled = !told.canRedo;
    next.disabled = !now.rest && !now.queue;
    next.classList.toggle("baal-call", now.open === 0 && now.rest > 0);
    again.hidden = !told.reviews.length && now.queue !== "reviews";
    settle.hidden = !told.contested.length && now.queue !== "contested";
    write(/** @type {Element} */ (again.firstChild), now.queue === "reviews" ? "Back to new images" : `Look again (${told.reviews.length})`);
    write(/** @type {Element} */ (settle.firstChild), now.queue === "contested" ? "Back to new images" : `Disagreements (${told.contested.length})`);
    write(/** @type {Element} */ (confirm.firstChild), now.queue === "contested" ? "Take suggestion" : "Take guess");
    write(/** @type {Element} */ (view.firstChild), now.shows === "grid" ? "Single image" : "Grid");
    badge.hidden = !now.aid;
    write(badge, now.aid && `${AIDS[now.aid]}, display only`);
    pressed(aid, Boolean(now.aid));
    pressed(why, now.why);
    const learning = told.training;
    training.hidden = confirm.hidden = guess.hidden = why.hidden = blindLabel.hidden = out.hidden = !learning;
    if (!learning) return;
    blind.checked = told.blind;
    if (document.activeElement !== every) every.value = String(learning.every);
    learn.hidden = every.hidden = learning.running;
    learn.disabled = !told.counts.some((count) => count > 0);
    learn.classList.toggle("baal-call", now.open === 0 && now.rest === 0 && !learn.disabled);
    meter.hidden = cancel.hidden = !learning.running;
    meter.value = learning.fraction;
    write(loss, learning.message);
  }

  return { bar, tools, foot, summary, advice, paint };
}

/** @param {HTMLElement} made @param {boolean} on */
function pressed(made, on) {
  if (made.getAttribute("aria-pressed") !== String(on)) made.setAttribute("aria-pressed", String(on));
}
