// @ts-check
// The last answers with their pictures; a click goes back to one.
import { element } from "./dom.js";

/** @param {(card: number) => void} back */
export function makeHistory(back) {
  const root = element("div", "baal-history", { role: "group", "aria-label": "Last answers" });
  return {
    root,
    /** @param {{card: number, text: string, url: string}[]} shown */
    paint(shown) {
      root.hidden = !shown.length;
      const look = JSON.stringify(shown.map(({ card, text, url }) => [card, text, Boolean(url)]));
      if (root.dataset.look === look || root.contains(document.activeElement)) return;
      root.dataset.look = look;
      root.replaceChildren(...shown.map(({ card, text, url }) => {
        const made = element("button", "baal-past", { type: "button", "aria-label": `Change ${text}` });
        if (url) made.append(element("img", "baal-image", { alt: "", src: url, draggable: "false" }));
        made.append(element("span", "", {}, text));
        made.addEventListener("click", () => back(card));
        return made;
      }));
    },
  };
}
