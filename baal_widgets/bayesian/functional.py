"""Find the dropout that a model calls as a function, which no layer holds: `F.dropout(x, 0.5, self.training)`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

_NAMES = {"alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"}


@dataclass(frozen=True)
class Calls:
    """The dropout calls in the `forward` of a class: what they drop, and whether `self.training` is theirs alone."""

    shares: tuple[ast.expr | None, ...]
    alone: bool


def drops_by_function(layer: nn.Module) -> bool:
    """Whether the module's own `forward` drops anything by a function, as far as its source tells."""
    calls = calls_of(type(layer))  # type: ignore[arg-type]  # classes are hashable
    return calls is not None and any(_value(share, layer) != 0 for share in calls.shares)


def can_be_kept_on(layer: nn.Module) -> bool:
    """Whether its functional dropout alone asks if the module is in training, so that answering yes changes no more."""
    calls = calls_of(type(layer))  # type: ignore[arg-type]  # classes are hashable
    return calls is not None and calls.alone


@cache
def calls_of(kind: type[nn.Module]) -> Calls | None:
    """The dropout calls of a class; `None` for torch's own layers and where there is no source or no call."""
    if kind.__module__.startswith("torch."):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))
    except (OSError, TypeError, SyntaxError):
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_dropout(node.func)]
    if not calls:
        return None
    asked = sum(map(_asks_mode, ast.walk(tree)))
    theirs = sum(_asks_mode(node) for call in calls for node in ast.walk(call))
    return Calls(tuple(map(_share, calls)), alone=asked == theirs > 0)


def _is_dropout(function: ast.expr) -> bool:
    """Whether it is `dropout`, `F.dropout`, `nn.functional.dropout`, but not the layer `self.dropout`."""
    if isinstance(function, ast.Name):
        return function.id in _NAMES
    if not isinstance(function, ast.Attribute) or function.attr not in _NAMES:
        return False
    root = function.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return not (isinstance(root, ast.Name) and root.id == "self")


def _asks_mode(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "training"
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


def _share(call: ast.Call) -> ast.expr | None:
    """What a call says for `p`; `None` where it says nothing, and torch takes a half."""
    said = [keyword.value for keyword in call.keywords if keyword.arg == "p"] or call.args[1:2]
    return said[0] if said else None


def _value(share: ast.expr | None, layer: nn.Module) -> Any:
    """The number that `p` is, if it is one or an attribute of the module; else unknown, which is `None`."""
    if isinstance(share, ast.Constant):
        return share.value
    if isinstance(share, ast.Attribute) and isinstance(share.value, ast.Name) and share.value.id == "self":
        return getattr(layer, share.attr, None)
    return None
