"""The classes of a session: added, renamed and merged while it goes on."""

from __future__ import annotations

from baal_widgets.book import Book
from baal_widgets.checks import check_class, check_class_name, check_merge
from baal_widgets.journal import Draft, JournalMovedError
from baal_widgets.vocabulary import Vocabulary


class Naming(Book):
    """The part of a session that names the classes."""

    @property
    def outputs(self) -> list[str]:
        """The class that each output of the model stands for now, and each number in `dataset` and `test_set`.

        That are `classes`, until one of them is merged into another: its output stays, and stands for the other one.
        """
        return self._state.outputs

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of this moment, their names and numbers."""
        with self._lock:
            self._catch_up()
            return self._words()

    def present_name(self, name: str) -> str:
        """What a class is called now that once had this name, after it was renamed or merged into another."""
        return self._state.present_name(name)

    def add_class(self, name: str, *, op_id: str | None = None) -> int:
        """Add a class after the others; its index. The model learns of it in the next lesson.

        Raises `ValueError` where there is one of that name, or where the model cannot be given another output.
        """
        name = check_class_name(name)
        with self._lock:
            self._catch_up()
            if not self._is_written(op_id):
                self._check_new(name)
                if self._job is None or self._job.done:  # else the next lesson begins with it
                    self._fit_learner(len(self.outputs) + 1)
                self._write(Draft("class_added", value=name, **self._signed(op_id)))
            return self.classes.index(check_class(self.classes, name))

    def rename_class(self, old: str, new: str, *, op_id: str | None = None) -> None:
        """Give a class another name, in every label too, those taken back included."""
        new = check_class_name(new)
        with self._lock:
            self._catch_up()
            if self._is_written(op_id):
                return
            if not isinstance(old, str):
                raise TypeError(f"Expected the name of a class, got {old!r}.")
            check_class(self.classes, old)
            self._check_new(new)
            self._write(Draft("class_renamed", payload={"old": old, "new": new}, **self._signed(op_id)))

    def merge_classes(self, old: str, into: str, *, op_id: str | None = None) -> None:
        """Let one class become part of another: every label `old`, those taken back included, is `into` from now on.

        Where an item may have several classes, one that had both has `into` once. The model keeps its output for `old`,
        and what it says by it counts for `into` (see `outputs`); a process or a file that still says `old` means
        `into`. At least two classes must be left. `undo` does not take it back, but nothing is lost: the journal
        holds what was said. To have the class again, `add_class(old)`, then give it the items that had it:
        `fold(journal.events()[:n]).labels` are the labels after the first `n` facts, before the merge.
        """
        with self._lock:
            while True:
                self._catch_up()
                if self._is_written(op_id):
                    return
                check_merge(self.classes, old, into)
                merge = Draft("class_merged", payload={"old": old, "into": into}, **self._signed(op_id))
                try:
                    self._write(merge, after=self._state.seq)
                except JournalMovedError:  # somebody else may have merged one of them meanwhile
                    continue
                return

    def _check_new(self, name: str) -> None:
        if name in self._state.classes:
            raise ValueError(f"There is a class {name!r} already. The classes are {', '.join(self._state.classes)}.")
