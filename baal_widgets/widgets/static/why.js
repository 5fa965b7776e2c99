// @ts-check
// Why this image: what the model knows of it, and what it is unsure of.
import { element, hue, percent } from "./dom.js";

/**
 * @typedef {object} Why
 * @property {number} generation
 * @property {number | null} rank
 * @property {number} ranked
 * @property {number | null} score
 * @property {number} total
 * @property {number} epistemic
 * @property {number} aleatoric
 * @property {number[]} probabilities
 * @property {number[]} votes
 * @property {{card: number, value: number, distance: number}[]} neighbours
 */

const LIKELIEST = 5;

/** How the draws are divided, in words: "17 of 20 say shirt". @param {number[]} votes @param {string[]} classes */
export function tally(votes, classes) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const vote of votes) counts.set(vote, (counts.get(vote) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])
    .map(([value, count], place) => `${count}${place ? "" : ` of ${votes.length} draws`} say ${classes[value]}`).join(", ");
}

/** What the two shares of the uncertainty say, in words. @param {Why} why */
export function verdict(why) {
  if (why.total < 0.05) return "The model is sure.";
  if (why.epistemic > 0.5 * why.total) return "It has not seen enough like this: a label here teaches it much.";
  if (why.epistemic < 0.15 * why.total) return "It looks ambiguous to every draw: a label here teaches little.";
  return "Partly unknown to the model, partly ambiguous.";
}

/** Fill the panel. @param {HTMLElement} panel @param {Why | null} why @param {string[]} classes
 * @param {(card: number) => string | undefined} urlOf */
export function showWhy(panel, why, classes, urlOf) {
  if (!why) {
    panel.replaceChildren(element("p", "baal-soft", {},
      "Nothing is known of this image yet: the model has not learned since this notebook was started, or has not looked at it."));
    return;
  }
  const head = element("p", "baal-why-head", {}, verdict(why));
  const facts = element("p", "baal-soft", {}, [
    why.rank ? `rank ${why.rank.toLocaleString()} of ${why.ranked.toLocaleString()}` : "",
    why.score === null ? "" : `score ${why.score.toPrecision(3)}`,
    `after lesson ${why.generation}`,
  ].filter(Boolean).join(" · "));

  const split = element("div", "baal-split", { role: "img",
    "aria-label": `Uncertainty ${why.total.toFixed(2)} nats: epistemic ${why.epistemic.toFixed(2)}, aleatoric ${why.aleatoric.toFixed(2)}` });
  const most = Math.log(Math.max(classes.filter(Boolean).length, 2));
  for (const [name, size] of /** @type {[string, number][]} */ ([["epistemic", why.epistemic], ["aleatoric", why.aleatoric]])) {
    const part = element("span", `baal-${name}`);
    part.style.width = `${(100 * Math.min(size, most)) / most}%`;
    split.append(part);
  }
  const legend = element("p", "baal-legend");
  legend.append(
    element("i", "baal-epistemic"), `epistemic ${why.epistemic.toFixed(2)} `,
    element("i", "baal-aleatoric"), `aleatoric ${why.aleatoric.toFixed(2)} `,
    element("span", "baal-soft", {}, `of at most ${most.toFixed(2)} nats`),
  );

  const said = tally(why.votes, classes);
  const strip = element("div", "baal-strip", { role: "img", "aria-label": said });
  for (const vote of [...why.votes].sort((a, b) => a - b)) {
    const tick = element("span", "baal-draw", { title: classes[vote] }, classes[vote].slice(0, 1));
    tick.style.setProperty("--baal-hue", `${hue(vote)}`);
    strip.append(tick);
  }

  const bars = element("div", "baal-bars");
  const order = why.probabilities.map((_, value) => value).filter((value) => classes[value]).sort((a, b) => why.probabilities[b] - why.probabilities[a]);
  for (const value of order.slice(0, LIKELIEST)) {
    const row = element("div", "baal-row");
    const bar = element("span", "baal-probability");
    bar.style.width = `${100 * why.probabilities[value]}%`;
    bar.style.setProperty("--baal-hue", `${hue(value)}`);
    const track = element("span", "baal-track");
    track.append(bar);
    row.append(element("span", "baal-row-name", {}, classes[value]), track, element("span", "baal-row-share", {}, percent(why.probabilities[value])));
    bars.append(row);
  }

  panel.replaceChildren(head, facts, split, legend, strip, element("p", "baal-soft", {}, said), bars);
  if (!why.neighbours.length) return;
  const near = element("div", "baal-near", { role: "group", "aria-label": "Nearest labelled images" });
  for (const { card, value, distance } of why.neighbours) {
    const figure = element("figure", "baal-neighbour", { title: `distance ${distance.toFixed(3)}` });
    const url = urlOf(card);
    if (url) figure.append(element("img", "baal-image", { alt: "", src: url, draggable: "false" }));
    figure.append(element("figcaption", "", {}, classes[value] ?? ""));
    near.append(figure);
  }
  panel.append(element("p", "baal-soft", {}, "nearest labelled images"), near);
}
