"""Baal's calibrator: a layer behind a model, trained batch by batch."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from baal_widgets.arrays import as_floats
from baal_widgets.calibration.scaling import check_classes, log_probabilities, odir
from baal_widgets.modelwrapper import ModelWrapper, bind
from baal_widgets.utils.metrics import ECE, ECE_PerCLs


class DirichletCalibrator:
    """A Dirichlet calibration layer behind a wrapper's model, trained on a dataset.

    Like `DirichletCalibration`, but batch by batch with Adam, for `training_duration` epochs at rate `lr`, so that
    a large dataset of large maps need not be in memory. `reg_factor` and `mu` are its `reg` and `mu`.

    The layer is put behind a *copy* of the model, taken anew by each `calibrate`; the model itself stays as it is, bit
    for bit. Only the layer learns, from the log-probabilities of the copy in `eval` mode. Of a stochastic model every
    pass is calibrated by itself; to pool the draws first, give their predictions to `DirichletCalibration`.
    """

    def __init__(
        self,
        wrapper: ModelWrapper,
        num_classes: int,
        lr: float,
        reg_factor: float,
        mu: float | None = None,
        training_duration: int = 5,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"Expected at least two classes, got {num_classes}. A yes/no model has two, no and yes.")
        self.num_classes, self.lr, self.training_duration = num_classes, lr, training_duration
        self.reg_factor = reg_factor
        self.mu = reg_factor if mu is None else mu
        self._given = wrapper
        self.model = CalibratedModel(wrapper.model, num_classes)
        told = replace(
            wrapper.args,
            criterion=nn.CrossEntropyLoss(),
            optimizer=None,
            regularizer=lambda: self.l2_reg(),
            epoch=training_duration,
        )
        self.wrapper = ModelWrapper(self.model, told, device=wrapper.device)
        self.wrapper.add_metric("ece", lambda: ECE(from_logits=True))
        self.wrapper.add_metric("ece_per_cls", lambda: ECE_PerCLs(num_classes, from_logits=True))

    @property
    def dirichlet_linear(self) -> nn.Linear:
        """The calibration layer."""
        return self.model.dirichlet_linear

    @property
    def calibrated_model(self) -> nn.Module:
        """The model with the layer behind it: logits in Baal's sense, whose softmax is calibrated."""
        return self.model

    @property
    def metrics(self) -> dict[str, Any]:
        """`test_loss`, `test_ece`, `test_ece_per_cls` of the calibrated model; `train_...` of the last epoch."""
        return self.wrapper.metrics

    def l2_reg(self) -> Tensor:
        """The ODIR penalty of the layer: see `DirichletCalibration`."""
        return odir(self.dirichlet_linear.weight, self.dirichlet_linear.bias, self.reg_factor, self.mu)

    def calibrate(
        self, train_set: Dataset[Any], test_set: Dataset[Any], *positional: Any, **named: Any
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Fit the layer to the model as it is now; the metrics of each epoch, and the weights of the calibrated model.

        1.x: `(train_set, test_set, batch_size, epoch, use_cuda, double_fit)`; 2.x: `(train_set, test_set, use_cuda,
        double_fit)`; other keywords are those of `ModelWrapper.train_and_test_on_datasets`. `train_set` should hold
        items that the model was not trained on. The layer begins as the identity and ends as the best on `test_set`
        of all epochs, that beginning included. `double_fit` goes on from there at a tenth of the rate.
        """
        first, second = ["batch_size", "epoch", "use_cuda", "double_fit"], ["use_cuda", "double_fit"]
        a_number = bool(positional) and isinstance(positional[0], int) and not isinstance(positional[0], bool)
        known = {"workers", "collate_fn", "patience", "min_epoch_for_es", "skip_epochs", *first}
        named = bind("calibrate", first if a_number else second, positional, named, known)
        testing = {name: named[name] for name in ("batch_size", "use_cuda", "workers", "collate_fn") if name in named}
        rates = (self.lr, self.lr / 10) if named.pop("double_fit", False) else (self.lr,)
        self.model.take(self._given.model)
        history: list[dict[str, Any]] = []
        least, best = self.wrapper.test_on_dataset(test_set, **testing), copy.deepcopy(self.model.state_dict())
        for rate in rates:
            self.optimizer = torch.optim.Adam(self.dirichlet_linear.parameters(), lr=rate)
            epochs, weights = self.wrapper.train_and_test_on_datasets(
                train_set, test_set, optimizer=self.optimizer, return_best_weights=True, **named
            )
            history += epochs
            reached = min((epoch["test_loss"] for epoch in epochs), default=least)
            if reached < least:
                least, best = reached, weights
            self.model.load_state_dict(best)
        self.wrapper.test_on_dataset(test_set, **testing)
        return history, best


class CalibratedModel(nn.Module):
    """A model that gives logits `[item, class, ...]`, with a linear layer on its log-probabilities behind it.

    The model is in `eval` mode whatever mode this one is in, and gets no gradients in training.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model = model
        # a layer that draws its weights would use up the global seed
        self.dirichlet_linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, num_classes, num_classes
        )
        self.take(model)

    def take(self, model: nn.Module) -> None:
        """Begin anew, with a copy of this model and the identity behind it."""
        self.model = copy.deepcopy(model).eval()
        parameter = next(self.model.parameters(), None)
        layer = self.dirichlet_linear if parameter is None else self.dirichlet_linear.to(parameter.device)
        with torch.no_grad():
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, data: Any) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            log_p = log_probabilities(as_floats(self.model(data)), are_logits=True)
        layer = self.dirichlet_linear
        check_classes(log_p, layer.in_features)
        mapped: Tensor = layer(log_p.movedim(1, -1).to(layer.weight.dtype))
        return mapped.movedim(-1, 1)
