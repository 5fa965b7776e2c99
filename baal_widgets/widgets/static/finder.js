// @ts-check
// Type to find a class, or to name a new one; also the line in which a note or a new name is written.
import { element } from "./dom.js";
import { found } from "./keys.js";

const OFFERED = 8;
let finders = 0;

/**
 * A text field that opens below the classes. `find` offers the classes that fit what is typed.
 * @param {() => void} left  called when it closes, to give the focus back
 */
export function makeField(left) {
  const number = ++finders; // two widgets on one page must not share an id
  const root = element("div", "baal-field");
  const label = element("label", "", { for: `baal-input-${number}` });
  const input = /** @type {HTMLInputElement} */ (element("input", "baal-input", { id: `baal-input-${number}`, type: "text",
    autocomplete: "off", spellcheck: "false" }));
  const list = element("div", "baal-options", { role: "listbox", id: `baal-options-${number}`, "aria-label": "Classes that fit" });
  root.append(label, input, list);
  root.hidden = true;
  /** @type {{name: string, pick: () => void}[]} */
  let options = [];
  let at = 0;
  /** @type {(text: string) => {name: string, pick: () => void}[]} */
  let offer = () => [];

  function paint() {
    list.replaceChildren(...options.map(({ name }, place) => {
      const option = element("div", "baal-option", { role: "option", id: `baal-option-${number}-${place}`,
        "aria-selected": String(place === at) }, name);
      option.addEventListener("pointerdown", (event) => { event.preventDefault(); at = place; take(); });
      return option;
    }));
    list.hidden = !options.length;
    input.setAttribute("aria-expanded", String(options.length > 0));
    if (options.length) input.setAttribute("aria-activedescendant", `baal-option-${number}-${at}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function refresh() { options = offer(input.value); at = 0; paint(); }

  function take() {
    const option = options[at];
    close();
    option?.pick();
  }

  function close() {
    root.hidden = true;
    left();
  }

  input.addEventListener("input", refresh);
  input.addEventListener("blur", () => { root.hidden = true; });
  root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // neither a class's key nor the notebook's
    switch (event.key) {
      case "Escape": close(); break;
      case "Enter": take(); break;
      case "ArrowDown": at = Math.min(at + 1, options.length - 1); paint(); break;
      case "ArrowUp": at = Math.max(at - 1, 0); paint(); break;
      default: return;
    }
    event.preventDefault();
  });

  /** @param {string} title @param {string} text @param {number} longest @param {typeof offer} ways @param {boolean} choosing */
  function open(title, text, longest, ways, choosing) {
    label.textContent = title;
    input.value = text;
    input.maxLength = longest;
    offer = ways;
    for (const [name, value] of Object.entries({ role: "combobox", "aria-controls": list.id, "aria-autocomplete": "list" })) {
      if (choosing) input.setAttribute(name, value);
      else input.removeAttribute(name);
    }
    root.hidden = false;
    refresh();
    list.classList.toggle("baal-unseen", !choosing);
    if (!choosing) input.removeAttribute("aria-expanded");
    input.focus({ preventScroll: true });
    input.select();
  }

  return {
    root,
    /** Choose among classes. @param {string[]} names @param {number[]} recent @param {(value: number) => void} pick
     * @param {((name: string) => void) | null} add */
    find(names, recent, pick, add) {
      open("Find a class", "", 200, (typed) => {
        const fitting = found(typed, names, recent).slice(0, OFFERED).map((value) => ({ name: names[value], pick: () => pick(value) }));
        const fresh = typed.trim();
        if (add && fresh && !names.includes(fresh)) fitting.push({ name: `Add the class “${fresh}”`, pick: () => add(fresh) });
        return fitting;
      }, true);
    },
    /** Ask before something great; Enter alone does nothing of it. @param {string} title @param {string} yes
     * @param {string} no @param {() => void} done */
    sure(title, yes, no, done) {
      open(title, "", 0, () => [{ name: no, pick: () => {} }, { name: yes, pick: done }], true);
    },
    /** Write a line. @param {string} title @param {string} text @param {number} longest @param {(text: string) => void} done */
    ask(title, text, longest, done) {
      open(title, text, longest, (typed) => [{ name: typed, pick: () => done(typed.trim()) }], false);
    },
  };
}
