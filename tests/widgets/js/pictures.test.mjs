// Pictures: what is asked for, in which order, and how much at once.
import assert from "node:assert/strict";
import test, { mock } from "node:test";
import { Pictures } from "../../../baal_widgets/widgets/static/pictures.js";

class FakeImage {
  classList = { toggle() {} };
  naturalWidth = 64;
  naturalHeight = 64;
  set src(url) { this.url = url; queueMicrotask(() => (url.includes("broken") ? this.onerror() : this.onload())); }
}
globalThis.Image = /** @type {any} */ (FakeImage);

function picturesOf() {
  const sent = [], made = new Pictures((message) => sent.push(message), () => {});
  return { made, sent };
}

function answer(made, { cards, large }, { type = "image/png", reason = "" } = {}) {
  const bytes = new Uint8Array(3 * cards.length).fill(7);
  return made.take({ cards, large, types: cards.map(() => type), reasons: cards.map(() => reason), sizes: cards.map(() => 3),
    whole: cards.map(() => true) }, [new DataView(bytes.buffer)]);
}

const upTo = (n, from = 0) => Array.from({ length: n - from }, (_, place) => from + place);

test("Nothing is asked for twice, and two requests are on their way at once", async () => {
  const { made, sent } = picturesOf();
  made.ask(upTo(400));
  assert.equal(sent.length, 2);
  while (made.flights.length) await answer(made, made.flights[0]);
  const cards = sent.flatMap((message) => message.cards);
  assert.deepEqual(cards, upTo(400));
  assert.equal(made.of(399).image.naturalWidth, 64);
});

test("Quick answers are followed by larger requests, slow ones by smaller", async () => {
  mock.timers.enable({ apis: ["Date"], now: 0 });
  const { made, sent } = picturesOf();
  made.ask(upTo(2000));
  const first = sent[0].cards.length;
  await answer(made, sent[0]);
  assert.equal(sent[2].cards.length, 2 * first);
  mock.timers.tick(5000);
  await answer(made, sent[1]);
  await answer(made, sent[2]);
  assert.equal(sent[4].cards.length, first / 2);
  mock.timers.reset();
});

test("What is wanted now goes before what was wanted earlier, and what nobody needs any more is dropped", async () => {
  const { made, sent } = picturesOf();
  made.ask(upTo(500));
  made.ask(upTo(1010, 1000));
  made.keepOnly(new Set(upTo(1010, 1000)));
  await answer(made, sent[0]);
  assert.deepEqual(sent[2].cards, upTo(1010, 1000));
  await answer(made, sent[1]);
  await answer(made, sent[2]);
  assert.equal(made.flights.length, 0);
});

test("What was lost is asked for again, last; a busy kernel has lost nothing", () => {
  mock.timers.enable({ apis: ["Date"], now: 1 });
  const { made, sent } = picturesOf();
  made.ask(upTo(200));
  mock.timers.tick(600_000); // ten minutes of another cell
  made.pump();
  assert.equal(sent.length, 2);
  made.heard = Date.now();
  made.pump();
  assert.deepEqual([sent.length, sent[2].cards[0]], [4, 96]);
  made.forgetWanted();
  made.pump();
  assert.equal(sent.length, 6);
  mock.timers.reset();
});

test("What is here already is not made again, and what comes to a closed page is let go", async () => {
  let urls = 0;
  mock.method(URL, "createObjectURL", () => `blob:${++urls}`);
  const revoked = mock.method(URL, "revokeObjectURL", () => {});
  const { made, sent } = picturesOf();
  made.askLarge([1, 2]);
  await answer(made, sent[0]);
  await answer(made, sent[0]);
  assert.equal(urls, 2);
  made.askLarge([3]);
  const coming = answer(made, sent[1]);
  made.close();
  await coming;
  assert.equal(revoked.mock.callCount(), 3);
  made.ask([9]);
  assert.equal(sent.length, 2);
});

test("A picture that cannot be shown has a reason and no image", async () => {
  const { made, sent } = picturesOf();
  made.ask([4, 5]);
  await answer(made, sent[0], { reason: "5.png is truncated" });
  assert.deepEqual([made.of(4).image, made.of(4).reason], [null, "5.png is truncated"]);
  made.ask([6]);
  await answer(made, sent[1], { type: "image/broken" });
  assert.match(made.of(6).reason, /browser/);
});
