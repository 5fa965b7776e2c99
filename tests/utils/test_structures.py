import pytest
import torch

from baal_widgets.utils.structures import batch_size_of


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(3, 2),
        {"path": ["a", "b"], "x": torch.zeros(3)},
        {"scale": torch.tensor(1.0), "x": [torch.zeros(3, 2)]},
        [["a", "b"], {"nothing": None}, (torch.tensor(1), torch.zeros(3))],
    ],
)
def test_the_size_of_a_batch_is_that_of_its_first_tensor_with_an_axis(batch):
    assert batch_size_of(batch) == 3


@pytest.mark.parametrize("batch", [["a", "b"], torch.tensor(1.0), {}, None])
def test_a_batch_without_such_a_tensor_is_refused_with_advice(batch):
    with pytest.raises(ValueError, match="Pass a collate_fn that makes tensors"):
        batch_size_of(batch)
