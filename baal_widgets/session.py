"""The labelling session: one object that walks the circle of asking, answering, learning and asking again."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.heuristics import HEURISTICS, AbstractHeuristic, get_heuristic
from baal_widgets.answering import Answering
from baal_widgets.checks import (
    check_classes,
    check_item,
    check_minutes,
    check_share,
    positive,
)
from baal_widgets.claims import Ranking, begun, in_hands, is_free, ranking, share
from baal_widgets.exchanging import Exchanging
from baal_widgets.identity import Files
from baal_widgets.inputs import MEMORY
from baal_widgets.insight import Dispute, Explanation, Insight
from baal_widgets.jobs import Job
from baal_widgets.journal import NAMING, Answer, Draft, Journal, JournalMovedError, Query, State, fold, keep
from baal_widgets.learning import Learner, Lesson
from baal_widgets.merging import explained, joined, still_disputed
from baal_widgets.modelwrapper import ModelWrapper
from baal_widgets.naming import Naming
from baal_widgets.pace import per_minute
from baal_widgets.people import People
from baal_widgets.queries import RESERVE, asking, chosen_repeats
from baal_widgets.register import Register
from baal_widgets.sources import open_source, open_tests
from baal_widgets.trainers import Trainer, check_left_to_it
from baal_widgets.training import Training
from baal_widgets.twin import RandomTwin
from baal_widgets.weights import weights_folder

MOST_REPEATS = 0.5
OPENING = ("heuristic", "query_size", "seed", "repeats", "budget", "multi_label", "overlap", "claim_minutes")
"""The settings, besides the classes, that `open` takes from the journal."""


@dataclass(frozen=True)
class Round:
    """A finished lesson: its number, the labels it learned from, what was measured and what to ask next."""

    number: int
    n_labelled: int
    metrics: dict[str, Any]
    query: Query


class LabellingSession(Answering, Naming, Exchanging, People):
    """Labels, a model that learns from them, and the question what to label next; all of it on disk.

    `dataset` is an `ActiveLearningDataset`, any torch dataset, or the path of a folder of images. `model` is a
    classifier with dropout (`nn.Module` or `ModelWrapper`, one output per class, logits); without one a small
    CNN is used. `test_set` yields (input, class index), or is a folder of images with a sub-folder a class; it turns
    on the learning curve and calibration. Any other library learns as a `Trainer`, an object with `train(dataset)`
    and `predict(dataset, iterations)`.
    `heuristic` ranks the pool: a name (`bald`, `entropy`, ...) or a `Heuristic`; where images are near-duplicates, such
    as frames of a film, "power_bald" (docs/study.md, B8-repeated-a and B8-power). `iterations` is the number of
    draws from the model, whose dropout stays on for them; a model that is a `BayesianModule` (an ensemble, Laplace,
    SWAG...) draws by itself. `targets` yields inputs whose labels matter, for EPIG. `journal` is a path or database
    URL, `None` keeps it in memory; a journal that exists is resumed: same round, same query, same history.

    `repeats` is the share of a query, at most a half, that comes once more on top of it: items this annotator has
    labelled before, to tell how consistent they are. `budget` is how many labels are wanted in all. With
    `multi_label` an item has any number of classes: labels are lists of them.

    `annotator` is the name of the person. Of several people on one journal no two are asked the same item, or `overlap`
    of them each; who says nothing for `claim_minutes` loses what they were asked to whoever asks next.

    `weights` is a folder for the model's weights after each lesson, `True` one beside the journal: see `load_weights`.

    Of a model whose first layers are frozen (no parameter has a gradient, nothing drops) the head alone learns, from
    the `features` of each item: computed once, kept beside the journal or in the folder named, and made anew for files,
    weights or transforms that changed. `False` computes them each time. Inputs that are the same at each read are
    kept in `memory` bytes a dataset.

    An item is its index in the whole dataset. Every answer is on disk when the call that gave it returns.
    All methods may be called from any thread.
    """

    def __init__(
        self,
        dataset: ActiveLearningDataset | Dataset[Any] | str | os.PathLike[str],
        model: nn.Module | ModelWrapper | Trainer | None = None,
        classes: Sequence[str] = (),
        *,
        test_set: Dataset[Any] | str | os.PathLike[str] | None = None,
        heuristic: str | AbstractHeuristic = "bald",
        query_size: int = 24,
        journal: str | os.PathLike[str] | None = "labels.db",
        annotator: str = "me",
        seed: int = 0,
        device: str | None = None,
        iterations: int = 20,
        training: Training | None = None,
        targets: Dataset[Any] | None = None,
        repeats: float = 0.0,
        budget: int | None = None,
        multi_label: bool = False,
        weights: str | os.PathLike[str] | bool | None = None,
        overlap: int = 1,
        claim_minutes: float = 10.0,
        features: bool | str | os.PathLike[str] = True,
        memory: int = MEMORY,
    ) -> None:
        names = check_classes(classes)
        check_left_to_it(model, training=training, weights=weights)
        self.multi_label = bool(multi_label)
        self._state = State({"multi_label": self.multi_label}, list(names))
        self.repeats = check_share("repeats", repeats, MOST_REPEATS)
        self.budget = None if budget is None else positive("budget", budget)
        self.query_size = positive("query_size", query_size)
        self.overlap = positive("overlap", overlap)
        self.claim_minutes = check_minutes("claim_minutes", claim_minutes)
        self.annotator = annotator
        self.seed = seed
        self._heuristic_name = _name_of(heuristic)
        # of several labels at once each is a question of its own: an item's score is their mean
        whole: dict[str, Any] = {"reduction": "mean"} if self.multi_label else {}
        made = get_heuristic(heuristic, seed=seed, **whole) if isinstance(heuristic, str) else heuristic
        self.heuristic = made.sized(self.query_size)
        self._source = open_source(dataset, multi_label=self.multi_label)
        if isinstance(test_set, (str, os.PathLike)):
            if self.multi_label:
                raise ValueError("A folder tells one class an image: with multi_label give a dataset as test_set.")
            test_set = open_tests(test_set, names, self._source.root)
        learner = partial(
            Learner,
            self._source,
            model,
            test_set=test_set,
            heuristic=self.heuristic,
            iterations=positive("iterations", iterations),
            training=training or Training(),
            device=device,
            seed=seed,
            targets=targets,
            multi_label=self.multi_label,
            features=features_folder(features, journal),
            memory=memory,
            explained=(1 + RESERVE) * self.query_size,
        )
        self._learner = learner(n_classes=len(names))
        self._insight: Insight | None = None
        self._lock = threading.RLock()
        self._job: Job[Round] | None = None
        self._closed = False
        self._moments = 0
        self._journal = Journal(journal)
        self._register = Register(self._source, self._journal)
        try:
            self._weights = weights_folder(weights, self.journal_path)
            self._state = self._resume()
            made_for = None if model is None else n_outputs(model)
            if made_for != len(names) and made_for in (len(self._state.settings["classes"]), len(self.outputs)):
                self._learner = learner(n_classes=made_for)  # when there were fewer classes, or more
            self._fit_learner()
        except BaseException:
            self._journal.close()
            raise

    @classmethod
    def open(
        cls,
        journal: str | os.PathLike[str],
        dataset: ActiveLearningDataset | Dataset[Any] | str | os.PathLike[str],
        model: nn.Module | ModelWrapper | Trainer | None = None,
        **options: Any,
    ) -> LabellingSession:
        """Go on where a journal ends, with the classes, heuristic, query size and seed it was begun with.

        `options` are those of the constructor and win over what the journal says. Raises `FileNotFoundError`
        where there is no journal.
        """
        if "://" not in os.fspath(journal) and not Path(journal).expanduser().is_file():
            raise FileNotFoundError(f"No journal at {journal}. To begin one, call LabellingSession(...) with it.")
        reader = Journal(journal)
        state = fold(reader.events(kinds=NAMING))
        reader.close()
        settings = state.settings
        if not settings:
            raise ValueError(f"{journal} is an empty journal. To begin it, call LabellingSession(...) with it.")
        told = {name: settings[name] for name in OPENING if settings.get(name)}
        return cls(dataset, model, journal=journal, **{"classes": state.classes, **told, **options})

    # What is now true

    @property
    def store(self) -> str:
        """A name for this journal that no other has, the same each time it is opened."""
        return self._store

    @property
    def anchor(self) -> str:
        """The place and hash of the journal's last fact, `SEQ:HASH`, to be written down elsewhere:
        `baal-widgets verify FILE --at SEQ:HASH` tells later whether all facts up to it are still as they were."""
        return self._journal.anchor

    @property
    def journal_path(self) -> Path | None:
        """The file of the journal; `None` where it is in memory or in a database elsewhere."""
        place = self._journal.place
        return None if place is None or "://" in place else Path(place).expanduser()

    @property
    def dataset(self) -> ActiveLearningDataset:
        """The `ActiveLearningDataset`, always in step with the journal."""
        return self._source.dataset

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read within is of one moment, and the journal is looked at once. Others wait: be brief."""
        with self._lock:
            self._catch_up()
            self._moments += 1
            try:
                yield
            finally:
                self._moments -= 1

    @property
    def labels(self) -> dict[int, Any]:
        """`{item: class name}`, the current truth; with `multi_label` a tuple of names, in the order of the classes."""
        with self._lock:
            self._catch_up()
            labels = self._state.labels
            words = self._words()
            return {item: words.told(value) for item, value in labels.items()} if self.multi_label else labels

    def key(self, item: int) -> str:
        """The name by which the journal knows an item: the path of its file, or its index."""
        return self._source.keys[check_item(item, len(self._source.keys))]

    def names_in(self, value: str) -> tuple[str, ...]:
        """The class names that the `value` of an `Answer` stands for; with `multi_label` any number of them."""
        return self._state.names_in(value)

    @property
    def skipped(self) -> set[int]:
        """The items set aside by `skip`, for whatever reason."""
        with self._lock:
            return self._state.skipped

    @property
    def unsure(self) -> set[int]:
        """Those of the items set aside of which somebody was not sure."""
        with self._lock:
            return self._state.unsure

    @property
    def files(self) -> Files:
        """What was found to have become of the items since they were labelled, when the session was opened or last
        checked: `.moved`, `.changed`, `.missing`, `.duplicates`. Printed, a summary."""
        return self._register.files

    def check_files(self) -> Files:
        """Read every labelled file, and those that are as long as another, and tell what has become of them; `files`.

        What was moved while the session was open is missing until it is opened again. Labelling goes on meanwhile.
        """
        with self._lock:
            self._catch_up()
            check = self._register.checking(self._state)
        return check()

    @property
    def flagged(self) -> set[int]:
        """The items that somebody has put a flag on."""
        with self._lock:
            self._catch_up()
            return set(self._state.flagged)

    @property
    def notes(self) -> dict[int, str]:
        """What somebody has written down about an item."""
        with self._lock:
            self._catch_up()
            return dict(self._state.notes)

    @property
    def round(self) -> int:
        """How many times the model has learned."""
        with self._lock:
            return self._state.round

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict for each time the model learned: `round`, `n_labelled`, `loss`, `converged` and, with a
        `test_set`, `accuracy`, `nll`, `brier`, `ece` and the bins of the `reliability` diagram."""
        with self._lock:
            self._catch_up()
            return [dict(row) for row in self._state.history]

    @property
    def progress(self) -> dict[str, Any]:
        """Counts: `n_items`, `n_labelled`, `n_skipped` (`n_unsure` of them unsure), `n_pool`, `n_flagged`, `per_class`,
        `round`, and `model_behind_by`, the labels given or changed since the model's last lesson began.

        `per_minute` is how fast this annotator answers, `None` until that can be told, and `minutes_left` how long the
        `budget` takes at that pace, `None` without one.
        """
        with self._lock:
            self._catch_up()
            state, n_items = self._state, len(self._source.keys)
            pace = per_minute(state.times.get(self.annotator, ()))
            left = None if self.budget is None else max(0, self.budget - state.n_labelled)
            return {
                "n_items": n_items,
                "n_labelled": state.n_labelled,
                "n_skipped": state.aside.total(),
                "n_unsure": state.aside["unsure"],
                "n_pool": n_items - len(state.answers),
                "n_flagged": len(state.flagged),
                "per_class": {name: state.counts[name] for name in state.classes},
                "round": state.round,
                "model_behind_by": state.behind,
                "budget": self.budget,
                "per_minute": pace,
                "minutes_left": None if left is None or pace is None else left / pace,
            }

    def recent(self, n: int) -> tuple[tuple[int, Answer], ...]:
        """The latest n answers of this annotator that still stand, newest first."""
        with self._lock:
            return tuple(self._state.recent(self.annotator, positive("n", n)))

    @property
    def model(self) -> Any:
        """The module or trainer as the last lesson of this process left it: a copy of the one that was given."""
        return self._learner.model

    def load_weights(self, round_: int | None = None) -> None:
        """Give `model` the weights that it had after a round, the last one for `None`; nothing else changes.

        What a posterior fits after training (Laplace, SWAG) is not among them. Raises `ValueError` where none were kept
        or the file is not as it was written, `FileNotFoundError` where it is gone.
        """
        kept = {row["round"]: row["weights"] for row in self.history if "weights" in row}
        round_ = self.round if round_ is None else round_
        if self._weights is None or round_ not in kept:
            raise ValueError(
                f"No weights were kept of round {round_}, but of {sorted(kept) or 'none'}. "
                "LabellingSession(..., weights=True) keeps those of each lesson to come, and knows where they are."
            )
        self._check_idle()
        self.model.load_state_dict(self._weights.read(kept[round_]))

    def picture(self, item: int, side: int | None = None) -> Image.Image:
        """The image of an item for a person: as it is in the file or the dataset, without augmentation.

        `side` reads a file faster, at most that many pixels a side.
        """
        return self._source.picture(check_item(item, len(self._source.keys)), side)

    @property
    def can_undo(self) -> bool:
        with self._lock:
            return self._state.last_done(self.annotator) is not None

    @property
    def can_redo(self) -> bool:
        with self._lock:
            return self._state.last_undone(self.annotator) is not None

    def answers(self, items: Sequence[int]) -> dict[int, Any]:
        """What is said of these items: a class index (with `multi_label` a list of them), -1 for skipped, -2 for
        unsure. Of what others have answered too it is this annotator's own. Items without an answer are left out, and
        those that wait for this annotator's."""
        with self._lock:
            given = {item: answer for item in items if (answer := self._answer_shown(item)) is not None}
            words = self._words()
        return {item: words.indices(answer) for item, answer in given.items()}

    # What the model knows

    def explain(self, item: int) -> Explanation | None:
        """Why the model asks for an item, as of the last lesson of this process; `None` before one, or where it did
        not look at the item."""
        item, insight = check_item(item, len(self._source.keys)), self._insight
        known = None if insight is None else insight.explain(item)
        return None if known is None else explained(known, self._places(), self.multi_label)

    def guess(self, item: int) -> tuple[int, float] | None:
        """The class that the model takes an item for, by its index, with its probability; `None` as in `explain`."""
        item, insight = check_item(item, len(self._source.keys)), self._insight
        if insight is None or not self._state.merged:
            return None if insight is None else insight.guess(item)
        told = insight.probabilities(item)
        if told is None:
            return None
        told = joined(told, self._places(), self.multi_label)
        return int(told.argmax()), float(told.max())

    @property
    def disputes(self) -> tuple[Dispute, ...]:
        """The labels that the last lesson of this process confidently disputes, most confident first, less those that
        were reviewed, changed or taken back since."""
        with self._lock:
            self._catch_up()
            disputes = () if self._insight is None else self._insight.disputes
            disputes = still_disputed(disputes, self._places())
            stand = self.answers([dispute.item for dispute in disputes])
            reviewed = self._state.reviewed
            return tuple(d for d in disputes if d.item not in reviewed and stand.get(d.item) == d.label)

    def random_twin(self, oracle: Sequence[Any] | Mapping[int, Any]) -> RandomTwin:
        """The same model, to learn from as many labels of randomly chosen items: what active learning saves.

        `oracle` are the true labels, as in `simulate`.
        """
        with self._lock:
            items = oracle.keys() if isinstance(oracle, Mapping) else range(len(oracle))
            words = self._words()
            truth = {int(item): words.target(words.written(oracle[item])) for item in items}
            return RandomTwin(self._learner, truth, self.seed)

    # Asking

    @property
    def query(self) -> Query:
        """The query that this annotator was asked last, answered or not; asks the first one."""
        with self._lock:
            return self._asked() or self.ask()

    def upcoming(self) -> tuple[int, ...]:
        """The items that `ask` would go on with before the next lesson: worth loading ahead."""
        with self._lock:
            query, who = self._asked(), self._asker()
            coming = () if query is None else query.reserve
            return tuple(item for item in coming if is_free(self._state, item, who, {}))[: self.query_size]

    def ask(self) -> Query:
        """The items to label now, most wanted first. The same query until each of them is labelled or skipped.

        They are this annotator's for `claim_minutes` from the last thing they did: nobody else is asked for them, save
        where `overlap` wants the answers of several people. Who comes back later finds what others have left of them.

        Before the first lesson they are drawn at random: an untrained model's scores say nothing. A heuristic that
        looks at features alone (`typiclust`, `coreset`, `max_herding`) begins by those of the model as it came. A query
        is empty when nothing is left to ask.
        """
        with self._lock:
            self._catch_up()
            while not self._open_items():
                last, size, clock = self._state.asked.of(self.annotator), self.query_size, self._clock()
                ranked = self._first_ranking() if self._state.query is None else []
                ranked = ranked or ranking(self._state, len(self._source.keys), self._asker(), clock, size, self.seed)
                draft = self._asking(ranked, self._state.round)
                if last is not None and not last.items and not draft.payload["items"]:
                    break  # that nothing is left is written once
                if self._write_next(draft):
                    break
            query = self._asked()
            assert query is not None
            return query

    def _asked(self) -> Query | None:
        """What this annotator was asked last, less what others have by now."""
        return in_hands(self._state, self._asker(), self._clock())

    def _first_ranking(self) -> Ranking:
        """What a heuristic asks that needs no labels, nothing where it does."""
        candidates = [item for item in range(len(self._source.keys)) if item not in self._state.answers]
        ranked = self._learner.rank_unlabelled(candidates, self._state.labels)
        return [] if ranked is None else list(zip(*ranked, strict=True))

    # Learning

    def learn(self, wait: bool = True) -> Any:
        """Train on the labels given so far, measure, score the pool and ask anew; the finished `Round`.

        With `wait=False` the same runs beside the labelling: a `Job` with `progress`, `cancel()` and `result()`.
        It learns from a snapshot: labels given meanwhile are kept and count for the next round. Cancelled or
        failed, it leaves everything as it was. One lesson runs at a time (`RuntimeError`).
        """
        with self._lock:
            self._catch_up()
            self._check_idle()
            targets = self._words().targets(self._state.answers)
            if not targets:
                raise ValueError("There is nothing to learn from yet: label at least one item first.")
            self._fit_learner()
            self._learner.remember(self._by_index(self._state.heard))  # not what a cancelled lesson said
            found = (row["arithmetic"] for row in reversed(self._state.history) if "arithmetic" in row)
            self._learner.arithmetic = next(found, None)  # nor what it measured
            seq, round_ = self._state.seq, self._state.round + 1
            candidates = [item for item in range(len(self._source.keys)) if item not in self._state.answers]

            def work(job: Job[Round]) -> Round:
                lesson = self._learner.learn(targets, candidates, round_, job)
                return self._finish(lesson, seq)

            self._job = Job(work)
        return self._job.start() if not wait else self._job.run().result()

    @property
    def job(self) -> Job[Round] | None:
        """The lesson that runs, or the last one."""
        return self._job

    def simulate(
        self,
        oracle: Sequence[Any] | Mapping[int, Any],
        rounds: int = 5,
        *,
        on_round: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Answer every query from the true labels and learn after each, `rounds` times; the history.

        `oracle[item]` is a class name or index, with `multi_label` a list of them. The answers are written as those of
        the annotator `oracle`.
        `on_round` is called with each new row of the history. Ends early when the pool is used up.
        """
        for _ in range(positive("rounds", rounds)):
            with self._lock:
                self._check_idle()
                self.ask()
                open_items = self._open_items()
                told = {item: self._value(oracle[item]) for item in open_items}
                self._write(*(self._draft("label", i, told[i], None, annotator="oracle") for i in open_items))
            if not open_items:
                break
            self.learn()
            if on_round is not None:
                on_round(self.history[-1])
        return self.history

    # Leaving

    def close(self) -> None:
        """Stop learning, if it is going on, and let go of the journal. Nothing needs saving."""
        job = self._job
        if job is not None and not job.done:
            job.cancel()
            job.exception()
        with self._lock:
            if not self._closed:
                self._register.contents.remember()
                keep(self._journal, self._state, self._index_of)
            self._closed = True
            self._journal.close()

    def __enter__(self) -> LabellingSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        told = self.progress
        return (
            f"LabellingSession({told['n_labelled']} of {told['n_items']} labelled, {len(self.classes)} classes, "
            f"round {told['round']})"
        )

    # Within: every change is a fact in the journal first, then folded

    def _resume(self) -> State:
        if not self._journal.events(limit=1):
            with suppress(JournalMovedError):  # another process has just begun it
                self._journal.append(self._opening(), *self._given(), after=0)
        self._store = self._journal.events(limit=1)[0].op_id
        given = self.classes
        state = self._register.open(lambda state: self._check_settings(state, given))
        if told := self._register.files.warning():
            warnings.warn(told, stacklevel=4)
        self._state = state
        steps: dict[int, dict[int, Any]] = {}
        for item, target in self._words().targets(state.answers).items():
            steps.setdefault(state.answers[item].round + 1, {})[item] = target
        for item in self._source.given.keys() - state.labels.keys():
            steps.setdefault(1, {})[item] = None
        for step in sorted(steps):
            self._source.put(steps[step], step)
        return state

    def _opening(self) -> Draft:
        settings = {
            "classes": list(self.classes),
            "heuristic": self._heuristic_name,
            "query_size": self.query_size,
            "seed": self.seed,
            "n_items": len(self._source.keys),
            "repeats": self.repeats,
            "budget": self.budget,
            "multi_label": self.multi_label,
            "overlap": self.overlap,
            "claim_minutes": self.claim_minutes,
        }
        return Draft("opened", annotator=self.annotator, payload=settings)

    def _given(self) -> list[Draft]:
        """The labels that the dataset came with, as facts of the annotator `dataset`."""
        return [
            self._draft("import", item, self._value(target), None, annotator="dataset", round_=0)
            for item, target in self._source.given.items()
        ]

    def _check_settings(self, state: State, given: Sequence[str]) -> None:
        settings, begun = state.settings, list(state.settings.get("classes", ()))
        if given not in (begun, state.classes):
            now = "" if begun == state.classes else f", which are {state.classes} now"
            raise ValueError(
                f"The journal {self._journal.place} was begun with the classes {begun}{now}, you gave "
                f"{list(given)}. Give another journal=, or resume it with LabellingSession.open(...)."
            )
        if bool(settings.get("multi_label")) != self.multi_label:
            raise ValueError(
                f"The journal {self._journal.place} was begun with multi_label={not self.multi_label}, you gave "
                f"{self.multi_label}. Give another journal=, or resume it with LabellingSession.open(...)."
            )
        by_number = self._source.files is None
        if by_number and settings["n_items"] != len(self._source.keys):
            raise ValueError(
                f"The journal {self._journal.place} was begun on {settings['n_items']} items, the dataset has "
                f"{len(self._source.keys)}. Give another journal= for another dataset."
            )

    def _check_idle(self) -> None:
        if self._job is not None and not self._job.done:
            raise RuntimeError("The model is learning already: wait for job.result(), or call job.cancel().")

    def _finish(self, lesson: Lesson, seq: int) -> Round:
        """Write what was measured and the next query in one transaction. Items answered meanwhile drop out."""
        kept = {}
        if self._weights is not None:  # hands go on while a large model is written
            kept["weights"] = self._weights.write(self.round + 1, self.model.state_dict())
        with self._lock:
            self._catch_up()
            heard = getattr(lesson, "said", None)
            while True:
                round_ = self._state.round + 1
                ranked = [
                    (i, score)
                    for i, score in zip(lesson.items, lesson.scores, strict=True)
                    if i not in self._state.answers
                ]
                told = {**lesson.metrics, **kept, "round": round_, "seq": seq}
                measured = Draft("measured", annotator="model", round=round_, payload=told)
                said = [] if heard is None else [self._said(heard, round_)]
                if self._write_next(measured, *said, self._asking(ranked, round_)):
                    break
            self._insight = getattr(lesson, "insight", None)
            query = self._asked()
            assert query is not None
            return Round(round_, lesson.metrics["n_labelled"], dict(lesson.metrics), query)

    def _said(self, told: Mapping[str, Any], round_: int) -> Draft:
        """What the model said of some of the pool, by the items' keys."""
        keys = [self._register.keys[item] for item in told["items"]]
        return Draft("said", annotator="model", round=round_, payload={"keys": keys, "said": told["said"]})

    def _by_index(self, told: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The same by the items' indices; those that are not in the dataset are left out."""
        if told is None:
            return None
        there = [(self._index_of[k], s) for k, s in zip(told["keys"], told["said"], strict=True) if k in self._index_of]
        there.sort(key=lambda one: one[0])
        return {"items": [item for item, _ in there], "said": [said for _, said in there]}

    def _asking(self, ranked: Ranking, round_: int) -> Draft:
        state, who = self._state, self._asker()
        number = 0 if state.query is None else state.query.number + 1
        again = chosen_repeats(
            state, self.annotator, round(self.repeats * self.query_size), np.random.default_rng([self.seed, number])
        )
        chosen = share(
            state, begun(state, who) + ranked, who, self._clock(), self.query_size, RESERVE * self.query_size
        )
        return asking(
            chosen, number=number, round_=round_, keys=self._register.keys, repeats=again, annotator=self.annotator
        )


def features_folder(features: bool | str | os.PathLike[str], journal: str | os.PathLike[str] | None) -> Path | bool:
    """Where features are kept: the folder named, else one beside the journal's file; `True` for in memory."""
    if not isinstance(features, bool):
        return Path(features).expanduser()
    if not features or journal is None or "://" in os.fspath(journal):
        return features
    path = Path(journal).expanduser()
    return path.with_name(f"{path.name}.features")


def n_outputs(model: nn.Module | ModelWrapper | Trainer) -> int | None:
    """How many outputs the last linear or convolutional layer of a model has; `None` without one."""
    module = model.model if isinstance(model, ModelWrapper) else model
    layers = module.modules() if isinstance(module, nn.Module) else ()
    told = [getattr(layer, "out_features", getattr(layer, "out_channels", None)) for layer in layers]
    return next((n for n in reversed(told) if isinstance(n, int)), None)


def _name_of(heuristic: str | AbstractHeuristic) -> str | None:
    """The name to find a heuristic by again; `None` for one with options of its own."""
    if isinstance(heuristic, str):
        return heuristic.lower()
    return next((name for name, kind in HEURISTICS.items() if type(heuristic) is kind), None)
