"""Train, evaluate, label what ranks first, and again, until there is reason to stop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from baal_widgets.active.active_loop import ActiveLearningLoop
from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.dataset.base import RandomSource
from baal_widgets.active.heuristics import AbstractHeuristic
from baal_widgets.active.heuristics.heuristics import is_array
from baal_widgets.active.stopping_criteria import (
    LabellingBudgetStoppingCriterion,
    StabilizingPredictionsStoppingCriterion,
    StoppingCriterion,
)
from baal_widgets.arrays import as_numpy
from baal_widgets.experiments.adapters import FrameworkAdapter
from baal_widgets.experiments.modelwrapper import ModelWrapperAdapter
from baal_widgets.modelwrapper import ModelWrapper


class ActiveLearningExperiment:
    """Active learning on a set whose labels are known, from the weights that the trainer has now in each round.

    `trainer` is a `ModelWrapper` or a `FrameworkAdapter` around another library. A round trains on what is labelled,
    evaluates with `iterations` draws averaged, and labels the `query_size` items that `heuristic` ranks first, out
    of `pool_size` random ones of the pool (`None`: all of it). It ends when `criterion` says so (default: when all is
    labelled), and in any case after a round on everything. `targets` are inputs whose labels matter, for EPIG;
    `stop_set` are items on which a `StabilizingPredictionsStoppingCriterion` compares the models.

    `records` holds what was measured in each round so far. An experiment can be stopped at any time; `start` goes on,
    in another process after `load_state_dict` as well.
    """

    def __init__(
        self,
        trainer: ModelWrapper | FrameworkAdapter,
        al_dataset: ActiveLearningDataset,
        eval_dataset: Dataset[Any],
        heuristic: AbstractHeuristic,
        query_size: int = 100,
        iterations: int = 20,
        pool_size: int | None = None,
        criterion: StoppingCriterion | None = None,
        *,
        random_state: RandomSource = None,
        targets: Dataset[Any] | None = None,
        stop_set: Dataset[Any] | None = None,
    ) -> None:
        self.adapter = ModelWrapperAdapter(trainer) if isinstance(trainer, ModelWrapper) else trainer
        missing = [
            name for name in ("reset_weights", "train", "evaluate", "predict") if not hasattr(self.adapter, name)
        ]
        if missing:
            raise TypeError(
                f"Expected a ModelWrapper or a FrameworkAdapter as trainer; {type(trainer).__name__} has no "
                f"{', '.join(missing)}."
            )
        self.al_dataset, self.eval_dataset, self.iterations = al_dataset, eval_dataset, iterations
        self.stop_set = stop_set
        self.criterion = criterion or LabellingBudgetStoppingCriterion(al_dataset, al_dataset.n_unlabelled)
        self.loop = ActiveLearningLoop(
            al_dataset,
            self.adapter.predict,
            heuristic,
            query_size,
            -1 if pool_size is None else pool_size,
            random_state=random_state,
            get_features=getattr(self.adapter, "features", None),
            targets=targets,
            iterations=iterations,
        )
        self.records: list[dict[str, Any]] = []
        self.finished = False

    def start(self, verbose: bool = True) -> list[dict[str, Any]]:
        """Run to the end; the `records`, a dict of metrics for each round. `verbose` shows progress."""
        rounds: Iterator[Any] = self.rounds()
        if verbose:
            from tqdm.auto import tqdm

            left = self.al_dataset.n_unlabelled
            rounds = tqdm(rounds, "Active learning", total=-(-left // self.loop.query_size) + 1, unit="round")
        for _ in rounds:
            pass
        return self.records

    def rounds(self) -> Iterator[dict[str, Any]]:
        """The same round by round: each record as soon as it is measured and the next items are labelled."""
        if not self.al_dataset.n_labelled:
            raise ValueError(
                "Nothing is labelled, so there is nothing to train on: call al_dataset.label_randomly(n) first."
            )
        for _ in itertools.takewhile(lambda _: not self.finished, itertools.count()):
            self.adapter.reset_weights()
            told = {**self.adapter.train(self.al_dataset), "n_labelled": self.al_dataset.n_labelled}
            measured = self.adapter.evaluate(self.eval_dataset, average_predictions=self.iterations)
            left = self.loop.step()
            self.finished = not left or self._should_stop(measured)
            record = {**told, **measured}
            self.records.append(record)
            yield record

    def _should_stop(self, measured: dict[str, Any]) -> bool:
        uncertainty = self.loop.uncertainties[np.isfinite(self.loop.uncertainties)]
        if not isinstance(self.criterion, StabilizingPredictionsStoppingCriterion):
            return self.criterion.should_stop(measured, uncertainty)
        if self.stop_set is None:
            raise ValueError("The criterion compares predictions on items that need no labels: give them as stop_set=.")
        said = self.adapter.predict(self.stop_set, self.iterations)
        said = said if is_array(said) else np.concatenate([as_numpy(part) for part in said])
        return self.criterion.should_stop(measured, uncertainty, said)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later, beside the weights that the trainer began with."""
        return {"dataset": self.al_dataset.state_dict(), "records": list(self.records), "finished": self.finished}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another experiment of the same parts stood."""
        self.al_dataset.load_state_dict(dict(state["dataset"]))
        self.records, self.finished = list(state["records"]), bool(state["finished"])
