"""Give a heuristic what it takes, and make no more of it than that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from baal_widgets.active.heuristics.heuristics import AbstractHeuristic, is_array
from baal_widgets.arrays import as_numpy

N_TARGETS = 200


def known_to(
    heuristic: AbstractHeuristic,
    pool: Dataset[Any],
    *,
    predict: Callable[[Dataset[Any]], Any],
    features: Callable[[Dataset[Any]], Any] | None,
    labelled: Dataset[Any],
    targets: Dataset[Any],
) -> list[Any]:
    """What the heuristic takes about the items of a pool, in its order.

    Predictions of the pool and of target items come from one call of `predict`, so the same draws make both.
    """
    takes, n = heuristic.takes, len(pool)  # type: ignore[arg-type]  # torch's Dataset does not promise a length
    known: dict[str, Any] = {"items": np.arange(n)}
    if "target_predictions" in takes:
        whole = predict(ConcatDataset([pool, targets]))
        whole = whole if is_array(whole) else np.concatenate([as_numpy(part) for part in whole])
        known |= {"predictions": whole[:n], "target_predictions": whole[n:]}
    elif "predictions" in takes:
        known["predictions"] = predict(pool)
    for name, dataset in (("features", pool), ("labelled_features", labelled)):
        if name in takes:
            if features is None:
                raise ValueError(
                    f"{type(heuristic).__name__} looks at features: say where they come from, "
                    "get_features=wrapper.features_on_dataset."
                )
            known[name] = features(dataset)
    return [known[name] for name in takes]
