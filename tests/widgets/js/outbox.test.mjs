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
  const { id } = box.add("label", 4, 2);
  assert.deepEqual(sent.map((message) => message.ops[0].item), [4]);
  assert.equal(storage.length, 1);
  box.done([id]);
  assert.equal(box.pending.length + storage.length, 0);
});

test("unanswered ones are sent again in order, under their ids", () => {
  const { box, sent } = outbox();
  const ids = [box.add("label", 1, 0).id, box.add("skip", 2).id, box.add("undo").id];
  box.done([ids[1]]);
  box.again();
  assert.deepEqual(sent.at(-1).ops.map((op) => op.id), [ids[0], ids[2]]);
});

test("what could not be saved is not overtaken by what comes after it", () => {
  const { box, sent } = outbox();
  const first = box.add("label", 5, 0);
  box.unsure = true;
  const second = box.add("label", 5, 1);
  assert.deepEqual(sent.at(-1).ops.map((op) => op.id), [first.id, second.id]);
  box.done([first.id, second.id]);
  box.add("label", 6, 0);
  assert.equal(sent.at(-1).ops.length, 1);
});

test("a new page finds what the old one could not save, in order, and only for its own journal", () => {
  const { box, storage } = outbox();
  for (let item = 0; item < 50; item++) box.add("label", item, item % 3);
  const again = new Outbox(() => {}, "store", storage);
  assert.deepEqual(again.pending.map((op) => op.item), Array.from({ length: 50 }, (_, item) => item));
  assert.equal(new Outbox(() => {}, "another", storage).pending.length, 0);
});

test("ids never repeat", () => {
  const { box } = outbox();
  const ids = new Set(Array.from({ length: 2000 }, () => box.add("skip", 0).id));
  assert.equal(ids.size, 2000);
});

test("storage that refuses is no hindrance", () => {
  const refuse = () => { throw new Error("refused"); };
  const storage = { length: 1, key: refuse, getItem: refuse, setItem: refuse, removeItem: refuse };
  const { box, sent } = outbox(storage);
  box.add("label", 1, 1);
  assert.equal(sent.length, 1);
});

test("what is on its way lies over what the kernel knows", () => {
  const seen = overlay({ 7: 1, 8: -1 }, [
    { id: "a", op: "label", item: 8, value: 0, at: 0, n: 0 },
    { id: "b", op: "skip", item: 7, at: 1, n: 1 },
    { id: "c", op: "undo", at: 2, n: 2 },
  ]);
  assert.deepEqual([...seen], [[7, -1], [8, 0]]);
});
