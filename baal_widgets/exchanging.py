"""Labels that leave a session and come back to it, in the formats of others."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from baal_widgets.book import Book
from baal_widgets.exchange import ImportPlan, Labelled, Whole, plan_import, read_labels, write_labels
from baal_widgets.journal import Draft, JournalMovedError
from baal_widgets.vocabulary import Vocabulary


class Exchanging(Book):
    """The part of a session that takes labels out and in."""

    def export(self, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Path:  # noqa: A002
        """Write the labels in a format, or in the one that the suffix tells; the path.

        `.csv`, `.jsonl`, `.parquet`, `.npz` (`baal`: the state of Baal's dataset), `.coco.json` (`coco`),
        `.label-studio.json` (`label-studio`), or a new folder with the images, as `imagefolder` (the default) or
        `huggingface`. Items set aside are left out. `options` are those of `exchange.write_labels`.
        """
        with self._lock:
            self._catch_up()
            words = self._words()
            rows = [
                Labelled(
                    item,
                    self._source.keys[item],
                    words.told(answer.value),
                    answer.annotator,
                    answer.round,
                    self._state.contents.get(self._register.keys[item], (0, None))[1],
                )
                for item, answer in sorted(self._state.answers.items())
                if answer.value is not None
            ]
            state = self._source.dataset.random_state.bit_generator.state
            whole = Whole(tuple(self._state.classes), len(self._source.keys), self._source, state)
        return write_labels(rows, path, format, whole=whole, **options)

    def import_labels(
        self,
        path: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        new_classes: bool = False,
        overwrite: bool = False,
        format: str | None = None,  # noqa: A002
    ) -> ImportPlan:
        """Take over the labels of a file or folder, in any format that `export` writes; what was done, to be printed.

        Items are found by their key (the path of an image), by index alone where the dataset has no keys of its own.
        Only items without an answer are labelled: `overwrite` also replaces labels that differ and labels what was set
        aside. Rows of unknown items or classes, and rows that contradict each other, are left out and reported;
        `new_classes` adds the classes; one that was renamed or merged is known by its old name too. With `dry_run`
        nothing is written. The same file again changes nothing, and one `undo` takes all of its labels back (classes
        stay). The labels are this annotator's; who gave them first is in the journal. Raises `ValueError` and writes
        nothing where the file cannot be read.
        """
        given = read_labels(path, format)
        with self._lock:
            while True:
                self._catch_up()
                rows = [row.renamed(self._state.present_name) for row in given]
                plan = plan_import(
                    rows,
                    Path(path).name or os.fspath(path),
                    index_of=self._register.by_path(),
                    look=self._register.contents.look,
                    by_number=self._source.files is None,
                    classes=self._state.classes,
                    multi_label=self.multi_label,
                    standing=self._standing,
                    new_classes=new_classes,
                    overwrite=overwrite,
                )
                if dry_run or not plan.to_write:
                    return plan
                try:
                    self._write_import(plan)
                except JournalMovedError:  # somebody has answered meanwhile: what is new may be so no more
                    continue
                return replace(plan, written=len(plan.to_write))

    def _standing(self, item: int) -> tuple[bool, Any]:
        """Whether an item has an answer, and its label, `None` where it was set aside."""
        answer = self._state.answers.get(item)
        value = None if answer is None else answer.value
        return answer is not None, None if value is None else self._words().told(value)

    def _write_import(self, plan: ImportPlan) -> None:
        """Write the classes and labels of an import, all in one, if nothing was written since it was planned."""
        if plan.added_classes and (self._job is None or self._job.done):
            self._fit_learner(len(self._state.outputs) + len(plan.added_classes))
        classes = [Draft("class_added", value=name, **self._signed(None)) for name in plan.added_classes]
        words = Vocabulary([*self._state.classes, *plan.added_classes], self.multi_label, self._state.merged)
        told = {"via": "import", "source": plan.source, "group": uuid.uuid4().hex}
        labels = [
            self._draft("label", one.item, words.written(one.new), None, payload={**told, "annotator": one.annotator})
            for one in plan.to_write
        ]
        self._write(*classes, *labels, after=self._state.seq)
