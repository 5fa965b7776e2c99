import assert from "node:assert/strict";
import test from "node:test";
import { Outbox, overlay } from "../../../baal_widgets/widgets/static/outbox.js";

class FakeStorage {
  map = new Map();
  get length() { return this.map.size; }
  key(i) { return [...this.map.keys()].sort()[i]; } // as browsers may
  getItem(key) { return this.map.get(key) ?? null; }
  setItem(key, value) { this.map.set(key, value); }
  removeItem(key) { this.map.delete(key); }
}

function outbox(storage = new FakeStorage()) {
  const sent = [];
  return { box: new Outbox((message) => sent.push(message), "store", storage), sent, storage };
}

test("an answer is sent at once and kept until it is done", () => {
  const { box, sent, storage } = outbox();
  const { id } = box.add("label", { card: 4, value: 2 });
  assert.deepEqual(sent.map((message) => message.ops[0].card), [4]);
  assert.equal(storage.length, 1);
  box.done([id]);
  assert.equal(box.pending.length + storage.length, 0);
});

test("unanswered ones are sent again in order, under their ids", () => {
  const { box, sent } = outbox();
  const ids = [box.add("label", { card: 1, value: 0 }).id, box.add("skip", { card: 2 }).id, box.add("undo").id];
  box.done([ids[1]]);
  box.again();
  assert.deepEqual(sent.at(-1).ops.map((op) => op.id), [ids[0], ids[2]]);
});

test("what could not be saved is not overtaken by what comes after it", () => {
  const { box, sent } = outbox();
  const first = box.add("label", { card: 5, value: 0 });
  box.unsure = true;
  const second = box.add("label", { card: 5, value: 1 });
  assert.deepEqual(sent.at(-1).ops.map((op) => op.id), [first.id, second.id]);
  box.done([first.id, second.id]);
  box.add("label", { card: 6, value: 0 });
  assert.equal(sent.at(-1).ops.length, 1);
});

test("a new page finds what the old one could not save, in order, and only for its own journal", () => {
  const { box, storage } = outbox();
  for (let item = 0; item < 50; item++) box.add("label", { card: item, value: item % 3 });
  const again = new Outbox(() => {}, "store", storage);
  assert.deepEqual(again.pending.map((op) => op.card), Array.from({ length: 50 }, (_, item) => item));
  assert.equal(new Outbox(() => {}, "another", storage).pending.length, 0);
});

test("ids never repeat", () => {
  const { box } = outbox();
  const ids = new Set(Array.from({ length: 2000 }, () => box.add("skip", { card: 0 }).id));
  assert.equal(ids.size, 2000);
});

test("storage that refuses is no hindrance", () => {
  const refuse = () => { throw new Error("refused"); };
  const storage = { length: 1, key: refuse, getItem: refuse, setItem: refuse, removeItem: refuse };
  const { box, sent } = outbox(storage);
  box.add("label", { card: 1, value: 1 });
  assert.equal(sent.length, 1);
});

test("what is on its way lies over what the kernel knows", () => {
  const seen = overlay({ 7: 1, 8: -1 }, [
    { id: "a", op: "label", card: 8, value: 0, at: 0, n: 0 },
    { id: "b", op: "skip", card: 7, at: 1, n: 1 },
    { id: "c", op: "undo", at: 2, n: 2 },
    { id: "d", op: "unsure", card: 9, at: 3, n: 3 },
    { id: "e", op: "label", card: 3, value: [0, 2], at: 4, n: 4 },
    { id: "f", op: "flag", card: 4, on: true, at: 5, n: 5 },
  ]);
  assert.deepEqual([...seen], [[7, -1], [8, 0], [9, -2], [3, [0, 2]]]);
});

test("what is added before the page is painted goes in one message, in order", () => {
  const sent = [], later = [];
  const box = new Outbox((message) => sent.push(message), "store", new FakeStorage(), (work) => later.push(work));
  const ids = [1, 2, 3].map((card) => box.add("skip", { card }).id);
  assert.deepEqual([sent.length, later.length, box.pending.length], [0, 1, 3]);
  later[0]();
  assert.deepEqual(sent.map((message) => message.ops.map((op) => op.id)), [ids]);
});

test("what is sent again is not sent once more by what was planned", () => {
  const sent = [], later = [];
  const box = new Outbox((message) => sent.push(message), "store", new FakeStorage(), (work) => later.push(work));
  box.add("skip", { card: 1 });
  box.again();
  later[0]();
  assert.equal(sent.length, 1);
});

test("answers older than a month are not brought back", () => {
  const { box, storage } = outbox();
  const { id } = box.add("skip", { card: 1 });
  storage.setItem(`baal-widgets:store:${id}`, JSON.stringify({ id, op: "skip", card: 1, at: Date.now() - 40 * 86_400_000, n: 0 }));
  assert.equal(new Outbox(() => {}, "store", storage).pending.length, 0);
});
