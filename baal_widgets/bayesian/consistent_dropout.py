"""Consistent dropout: one mask for all items of a draw, so that what is drawn is a function and not noise on items.

For what looks at several items at once, such as the joint entropies of BatchBALD (Kirsch, van Amersfoort and Gal,
NeurIPS 2019, arXiv:1906.08158).
"""

from __future__ import annotations

import copy
import math
import warnings

import torch
from torch import Tensor, nn

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.bayesian.dropout import AlwaysOn
from baal_widgets.bayesian.passes import Copies, CopyError, DrawsPerItem
from baal_widgets.bayesian.swapping import Swapped, swap, swap_back

_NOTHING = (
    "The model has no dropout layer that is on: put nn.Dropout(0.5) before its last linear layer. The dropout inside "
    "of RNNs and attention has no consistent mask: use MCDropoutModule for it."
)
_ELEMENTS = (nn.Dropout, nn.AlphaDropout)
_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
_ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout)
_SELU_FLOOR = -1.7580993408473766  # what SELU tends to at the far left, -scale * alpha (Klambauer et al. 2017)


class Unfused(AlwaysOn):
    """A Transformer layer that calls its parts: in `eval` mode torch's fused path would go past what is in them."""

    prefix = "Unfused"


def unfuse(module: nn.Module, mixin: type) -> None:
    """Let the Transformer layers that hold parts of a mixin call them, until `fuse`."""
    for holder in list(module.modules()):
        if isinstance(holder, (nn.TransformerEncoderLayer, nn.TransformerEncoder)) and any(
            isinstance(part, mixin) for part in holder.modules()
        ):
            swap(holder, Unfused)


def fuse(module: nn.Module) -> None:
    """Undo `unfuse`."""
    for holder in module.modules():
        swap_back(holder, Unfused)


class ConsistentMask(DrawsOnce, DrawsPerItem, Swapped):
    """A dropout layer that in `eval` mode drops the same features of every item.

    Each call has a new mask, of the shape of one item; calls of one numbered draw have the same mask wherever items
    have the same shape, so a layer that is used at several places of a model has one mask for all of them. Items are
    along the first axis. In training mode it is the layer's own dropout, with a mask for each item.
    """

    prefix = "Consistent"
    added = ("copies", "can_copy", "can_map", "surveyed")

    training: bool
    p: float

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        if self.training:
            return super().forward(input)  # type: ignore[misc, no-any-return]
        (input,), _ = self.entered((input,), {})  # noqa: A001
        keep = self._kept(input)
        dropped = _alpha_dropped(input, keep, self.p) if isinstance(self, _ALPHA) else _dropped(input, keep, self.p)
        # not in place: the input may be the caller's, and goes into the next draw too
        # torch's own forward passes it on in eval mode, a user's may do more
        return super().forward(dropped)  # type: ignore[misc, no-any-return]

    def _kept(self, x: Tensor) -> Tensor:
        """What isn't dropped of each item, or where several draws are made at once, of each copy of one."""
        shape = _mask_shape(self, x)
        if not isinstance(self.copies, Copies):
            return torch.rand(shape, generator=self.draw_generator(x.device), device=x.device) >= self.p
        if len(shape) == x.ndim:
            raise CopyError  # it has no axis for items
        masks = []
        for number in range(self.copies.draws):
            self.use_draw(number)
            masks.append(torch.rand(shape, generator=self.draw_generator(x.device), device=x.device) >= self.p)
        self.use_draw(None)
        return torch.stack(masks).repeat_interleave(self.copies.items, dim=0)


class ConsistentDropout(ConsistentMask, nn.Dropout):
    """Dropout that in `eval` mode drops the same features of all items, others in each call or numbered draw.

    >>> layer, items = ConsistentDropout(0.5).eval(), torch.ones(3, 4)
    >>> first, second, third = layer(items)
    >>> torch.equal(first, second), torch.equal(first, third), set(first.tolist()) <= {0.0, 2.0}
    (True, True, True)
    """


class ConsistentDropout2d(ConsistentMask, nn.Dropout2d):
    """The same for whole channels of images `[item, channel, height, width]`."""


def consistent_layers(module: nn.Module) -> list[str]:
    """The names of the layers of a model that can have a consistent mask, or have one: dropout layers that drop."""
    return [name for name, layer in module.named_modules() if _can_be_consistent(layer)]


def patch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Give the dropout layers of a model a mask that all items share in `eval` mode, and return it.

    In place, as in Baal, unless told otherwise; `inplace=False` works on a copy. `unpatch_module` puts it back.
    All kinds of torch's dropout layers are taken, AlphaDropout with its own affine correction. The dropout inside
    of RNNs and of attention is none of them and is off in `eval` mode. Warns when there is nothing to take. Raises
    `ValueError` for layers that MC-Dropout keeps on, whose masks differ among items.
    """
    module = module if inplace else copy.deepcopy(module)
    found = [layer for layer in module.modules() if _can_be_consistent(layer)]
    if not found:
        warnings.warn(f"No layer was modified by patch_module! {_NOTHING}", UserWarning, stacklevel=2)
    if any(isinstance(layer, AlwaysOn) for layer in found):
        raise ValueError(
            "Expected dropout layers that are off in eval mode, got some that MC-Dropout keeps on, with a mask for "
            "each item. Call baal_widgets.bayesian.dropout.unpatch_module on the model first."
        )
    for layer in found:
        swap(layer, ConsistentMask)
    unfuse(module, ConsistentMask)
    return module


def unpatch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Undo `patch_module`: every layer is of its own class again. Nothing to undo is fine.

    Layers that were made as this module's `ConsistentDropout` become torch's; those of a class derived from it stay.
    """
    module = module if inplace else copy.deepcopy(module)
    for layer in module.modules():
        swap_back(layer, ConsistentMask)
    fuse(module)
    return module


class MCConsistentDropoutModule(BayesianModule):
    """MC-Dropout whose draws are functions: in `eval` mode a call drops the same features of all its items.

    Unlike Baal's, the mask is drawn anew for each direct call and for each numbered draw of `sample`, and two batches
    of one draw have the same. Raises `ValueError` for a model without dropout layers. A draw costs a pass of the
    model for each batch: draws cannot be put in one batch.

    >>> model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    >>> with MCConsistentDropoutModule(model) as mc_model:
    ...     draws = mc_model.eval().sample(torch.ones(3, 4), draws=5)
    >>> draws.shape, torch.equal(draws[0], draws[1])
    (torch.Size([3, 2, 5]), True)
    """

    patching_function = staticmethod(patch_module)
    unpatch_function = staticmethod(unpatch_module)

    def __init__(self, module: nn.Module) -> None:
        if not consistent_layers(module):
            raise ValueError(f"Every draw of this model would be the same. {_NOTHING}")
        super().__init__(module)


def _can_be_consistent(layer: nn.Module) -> bool:
    return isinstance(layer, (*_ELEMENTS, *_CHANNELS)) and layer.p > 0


def _mask_shape(layer: object, x: Tensor) -> tuple[int, ...]:
    """What is drawn for all items: a value for each feature, or one for each channel."""
    if isinstance(layer, _ELEMENTS):
        return tuple(x.shape[1:])
    # these two also take one item without an axis for items
    alone = (isinstance(layer, nn.Dropout1d) and x.ndim == 2) or (isinstance(layer, nn.Dropout3d) and x.ndim == 4)
    channels = 0 if alone else 1
    return (x.shape[channels], *(1 for _ in x.shape[channels + 1 :]))


def _dropped(x: Tensor, keep: Tensor, p: float) -> Tensor:
    return x * (keep.to(x.dtype) * (1 / (1 - p) if p < 1 else 0.0))


def _alpha_dropped(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """What is dropped is SELU's floor, then all is shifted and scaled to the mean and variance it had (ibid.)."""
    if p == 1:
        return torch.zeros_like(x)
    scale = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
    shift = p * _SELU_FLOOR
    return (torch.where(keep, x, _SELU_FLOOR) - shift) * scale
