"""MC-BatchNorm: uncertain is which mini-batch the layers were normalised by (Teye et al. 2018, arXiv:1802.06455).

For models with batch normalisation and no dropout: nothing in them or in their training changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce, evaluating
from baal_widgets.bayesian.swapping import holding
from baal_widgets.devices import device_of
from baal_widgets.utils.structures import inputs_of, to_device

Statistics = tuple[Tensor, Tensor]


def as_it_is(module: nn.Module) -> nn.Module:
    """The patch of posteriors that put nothing into the model's layers."""
    return module


class MCBatchNormModule(DrawsOnce, BayesianModule):
    """A model whose batch normalisation in `eval` mode uses the statistics of a training mini-batch, one for each draw.

    `fit(dataset)`, once the model is trained, keeps the mean and variance that each layer meets in `n_batches`
    mini-batches; a draw is made with those of one of them, picked at random, for all items and all layers. So there are
    `n_batches` models to draw from. Let `batch_size` be the one of training: the smaller, the larger the spread.

    The caller's model and its running statistics stay as they were. What was fitted moves with the module and is
    pickled with it, but is not part of its `state_dict`. It takes `2 * n_batches` numbers for each channel. Raises
    `ValueError` for a model without batch normalisation and `RuntimeError` for draws before `fit`.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    >>> mc_model = MCBatchNormModule(model).eval()
    >>> mc_model.fit([(torch.randn(4), 0) for _ in range(20)], batch_size=5)
    >>> mc_model.sample(torch.ones(3, 4), draws=6).shape
    torch.Size([3, 2, 6])
    """

    patching_function = staticmethod(as_it_is)
    unpatch_function = staticmethod(as_it_is)
    fitted = ("means", "variances")
    means: Tensor | None
    variances: Tensor | None

    def __init__(self, module: nn.Module, n_batches: int = 64) -> None:
        if not batch_norms(module):
            raise ValueError(
                "Every draw of this model would be the same: it has no batch normalisation. Put nn.BatchNorm1d or "
                "nn.BatchNorm2d after its layers before it is trained, or choose another posterior."
            )
        if n_batches < 2:
            raise ValueError(f"Expected n_batches to be from 2 on, got {n_batches}.")
        super().__init__(module)
        self.n_batches = n_batches
        self.register_buffer("means", None, persistent=False)
        self.register_buffer("variances", None, persistent=False)
        self._over = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training or self._over:
            return self.parent_module(*args, **kwargs)
        if self.means is None or self.variances is None:
            raise RuntimeError(
                "There are no mini-batches to draw from yet: once the model is trained, call fit(dataset) with the "
                "training set."
            )
        pick = int(torch.randint(len(self.means), (), generator=self.draw_generator("cpu")))
        with normalised_by(batch_norms(self.parent_module), (self.means[pick], self.variances[pick])):
            return self.parent_module(*args, **kwargs)

    def fit(
        self,
        dataset: Dataset[Any],
        *,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        batch_size: int = 32,
        collate_fn: Callable[..., Any] | None = None,
        train: Callable[[], None] | None = None,
    ) -> None:
        """Meet `n_batches` mini-batches of the training set, and keep each layer's statistics of them.

        Passes the set in new orders, in mini-batches of `batch_size` or of half of the items if that is less, until
        there are enough. All else in the model is in `eval` mode meanwhile, such as dropout.

        Costs `n_batches` forward passes of a mini-batch. Raises `ValueError` for fewer than four items.
        """
        n_items = len(dataset)  # type: ignore[arg-type]
        if n_items < 4:
            raise ValueError(f"Expected at least 4 items to make different mini-batches of, got {n_items}.")
        loader = DataLoader(
            dataset, min(batch_size, n_items // 2) if batch_size > 1 else 2, shuffle=True, drop_last=True,
            collate_fn=collate_fn,
        )  # fmt: skip
        met = list[Statistics]()
        with torch.inference_mode(False), evaluating(self.parent_module):
            while len(met) < self.n_batches:
                for batch, _ in zip(loader, range(self.n_batches - len(met)), strict=False):
                    met.append(batch_statistics(self.parent_module, inputs_of(batch)))
        self.means, self.variances = (torch.stack(each) for each in zip(*met, strict=True))

    def unpatch(self) -> nn.Module:
        self._over = True
        return super().unpatch()


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """A model's layers of batch normalisation."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def batch_statistics(module: nn.Module, inputs: Any) -> Statistics:
    """The means and the variances that the layers of a model in `eval` mode meet in a batch, `[channel]` of all layers.

    As in training, each layer passes on what it has normalised by this very batch, and the variance is the one it
    normalises by, with n and not n - 1 below. A layer that is used twice counts with what it meets last, and one that
    is not used with its running statistics. The running statistics are left alone.
    """
    layers = batch_norms(module)

    def meet(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float() if args[0].dtype in (torch.float16, torch.bfloat16) else args[0]
        variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
        vars(layer)["_buffers"] = {**layer._buffers, "running_mean": mean, "running_var": variance}

    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            # the dicts of buffers and hooks are shared with the caller's model
            own: OrderedDict[int, Any] = OrderedDict(layer._forward_pre_hooks)
            stack.enter_context(holding(layer, _buffers=dict(layer._buffers), _forward_pre_hooks=own))
            layer.register_forward_pre_hook(meet)
        module(to_device(inputs, device_of(module)))
        means = [_or_else(layer, layer.running_mean, 0.0) for layer in layers]
        variances = [_or_else(layer, layer.running_var, 1.0) for layer in layers]
    return torch.cat(means), torch.cat(variances)


@contextmanager
def normalised_by(layers: Sequence[_BatchNorm], statistics: Statistics) -> Iterator[None]:
    """Within the block layers in `eval` mode normalise by these statistics, `[channel]` of all layers."""
    sizes = [layer.num_features for layer in layers]
    with ExitStack() as stack:
        for layer, mean, variance in zip(layers, *(torch.split(one, sizes) for one in statistics), strict=True):
            buffers = {**layer._buffers, "running_mean": mean, "running_var": variance}
            stack.enter_context(holding(layer, _buffers=buffers))
        yield


def _or_else(layer: _BatchNorm, value: Tensor | None, otherwise: float) -> Tensor:
    return torch.full((layer.num_features,), otherwise, device=device_of(layer)) if value is None else value
