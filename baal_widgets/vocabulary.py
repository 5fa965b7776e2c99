"""A label as a person gives it, as the journal writes it, and as the model learns it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from baal_widgets.checks import check_class, check_label_set
from baal_widgets.journal import Answer, numbers_of, outputs_of

SKIPPED, UNSURE = -1, -2
"""What stands in the place of a class index for an item that was set aside."""


class Vocabulary:
    """The classes of a moment, and whether an item has one of them or any number.

    What the journal writes is the name of the class, or the names as a JSON list, in the order of the classes. What
    the model learns is its number, which stays when others are `merged` away; see `State.outputs`.

    >>> several = Vocabulary(["cat", "dog", "cow"], multi_label=True)
    >>> several.written(["cow", 0]), several.target('["cat", "cow"]').tolist()
    ('["cat", "cow"]', [1.0, 0.0, 1.0])
    """

    def __init__(
        self, classes: Sequence[str], multi_label: bool = False, merged: Mapping[int, str] | None = None
    ) -> None:
        self.classes, self.multi_label = classes, multi_label
        self.outputs = outputs_of(classes, merged or {})
        self.numbers = numbers_of(classes, merged or {})
        self._index = {name: index for index, name in enumerate(classes)}

    def written(self, label: Any) -> str:
        """A label that a person gave, checked: a name or index, or several where that may be."""
        if self.multi_label:
            return json.dumps(check_label_set(self.classes, label), ensure_ascii=False)
        return check_class(self.classes, label)

    def told(self, value: str) -> Any:
        """A class name, or a tuple of them."""
        return tuple(json.loads(value)) if self.multi_label else value

    def indices(self, answer: Answer) -> Any:
        """A class index or a list of them; what stands for it where the item was set aside."""
        if answer.value is None:
            return UNSURE if answer.why == "unsure" else SKIPPED
        return self.index(self.told(answer.value))

    def index(self, label: Any) -> Any:
        """The class index of a label as `told`, or a list of them; `KeyError` where there is no such class."""
        return [self._index[name] for name in label] if self.multi_label else self._index[label]

    def target(self, value: str) -> Any:
        """The number of a class, or a row of zeros and ones `[output]`."""
        if not self.multi_label:
            return self.numbers[value]
        row = torch.zeros(len(self.outputs))
        row[[self.numbers[name] for name in self.told(value)]] = 1.0
        return row

    def places(self) -> list[int]:
        """By number: the index, among the classes that there are, of the one that it stands for."""
        return [self._index[name] for name in self.outputs]

    def numbered(self, value: Any) -> Any:
        """The number of a class that is given by its index, or those of several; what is below 0 stays."""
        if isinstance(value, (list, tuple)):
            return [self.numbers[self.classes[index]] for index in value]
        return value if value < 0 else self.numbers[self.classes[value]]

    def current(self, value: Any) -> Any:
        """Numbers as they are now: that of a class merged away is the one it was merged into."""
        if isinstance(value, (list, tuple)):
            return sorted({self.current(one) for one in value})
        return self.numbers[self.outputs[value]] if 0 <= value < len(self.outputs) else value

    def named(self, value: Any) -> Any:
        """The class that has a number now, or those of several; a number that none has stays."""
        if isinstance(value, (list, tuple)):
            return [self.named(one) for one in value]
        return self.outputs[value] if isinstance(value, int) and 0 <= value < len(self.outputs) else value

    def targets(self, answers: Mapping[int, Answer | None]) -> dict[int, Any]:
        """`{item: target}` of those of the items that are labelled."""
        return {i: self.target(a.value) for i, a in answers.items() if a is not None and a.value is not None}
