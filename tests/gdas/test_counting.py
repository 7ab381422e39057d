"""Multiply-adds of any module: counted, or refused by name, never silently zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.errors import InputError
from gdas.metrics import count_multiply_adds
from gdas.rnn.cell import DerivedCell
from gdas.rnn.genotype import PUBLISHED_RECURRENT

IMAGE = torch.zeros(1, 4, 9, 9)
SERIES = torch.zeros(7, 2, 4)


class Plain(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@pytest.mark.parametrize(
    ("module", "x", "expected"),
    [
        # By hand: outputs times products of each, and one for a bias.
        (nn.Conv2d(4, 6, 3, groups=2, stride=2), IMAGE, 6 * 16 * (2 * 9 + 1)),
        (nn.Conv1d(4, 6, 3), torch.zeros(1, 4, 9), 6 * 7 * (4 * 3 + 1)),
        (nn.Conv3d(4, 6, 3, bias=False), torch.zeros(1, 4, 9, 9, 9), 6 * 343 * 4 * 27),
        # Transposed: every number of the input is multiplied by 6 x 3 x 3 weights.
        (nn.ConvTranspose2d(4, 6, 3, bias=False), IMAGE, 4 * 81 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGE, 4 * 81 * 3 * 9 + 6 * 121),
        (Plain(lambda x: F.conv2d(x, torch.zeros(6, 4, 1, 1))), IMAGE, 6 * 81 * 4),
        (Plain(lambda x: F.linear(x, torch.zeros(5, 4))), SERIES, 14 * 5 * 4),
        (nn.Linear(4, 5), SERIES, 14 * 5 * (4 + 1)),
        # The same where PyTorch adds the bias in an operator of its own.
        (nn.Linear(4, 5), torch.zeros(2, 7, 4).transpose(0, 1), 14 * 5 * (4 + 1)),
        (nn.Linear(4, 5), torch.zeros(4), 5 * (4 + 1)),
        (Plain(lambda x: torch.einsum("tbi,tbj->tij", x, x)), SERIES, 7 * 4 * 4 * 2),
        (Plain(lambda x: x[0, 0] @ x[0, 0]), SERIES, 4),
        (nn.LSTM(4, 5, 2), SERIES, 14 * (20 * (4 + 5 + 2) + 20 * (5 + 5 + 2))),
        (nn.LSTMCell(4, 5), SERIES[0], 2 * 20 * (4 + 5 + 2)),
        (nn.GRU(4, 5), SERIES, 14 * 15 * (4 + 5 + 2)),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(3), nn.Upsample(9)), IMAGE, 0),
        (nn.Upsample(18, mode="bilinear"), IMAGE, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_every_product_is_counted(module: nn.Module, x: Tensor, expected: int) -> None:
    assert count_multiply_adds(module, x) == expected
    assert module.training, "it returns to the mode that it was in"


def test_a_layer_that_is_used_twice_is_counted_twice() -> None:
    shared = nn.Conv2d(4, 4, 1, bias=False)
    assert (
        count_multiply_adds(nn.Sequential(shared, nn.Sequential(shared)), IMAGE) == 2 * 4 * 81 * 4
    )


def test_a_recurrent_cell_is_counted() -> None:
    """One matrix for the input and the state, and one for each of the eight nodes."""
    cell = DerivedCell(PUBLISHED_RECURRENT["RNN_GDAS"], 10)
    counted = count_multiply_adds(cell, torch.zeros(3, 2, 10), torch.zeros(2, 10))
    assert counted == 3 * 2 * (20 * 20 + 8 * 10 * 20)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_counted_alike_on_every_device(device: str) -> None:
    attend = Plain(lambda x: F.scaled_dot_product_attention(x, x, x))
    # For each of 2 heads, 5 queries by 5 keys of 4 numbers, and as much for the values.
    assert count_multiply_adds(attend, torch.zeros(1, 2, 5, 4, device=device)) == 2 * 2 * 5 * 5 * 4
    layer = nn.TransformerEncoderLayer(8, 2, 16, bias=False, batch_first=True).to(device)
    products = (
        5 * 8 * (3 * 8) + 5 * 8 * 8 + 2 * 5 * 8 * 16
    )  # to q, k and v; out of it; feed-forward
    counted = count_multiply_adds(layer, torch.zeros(1, 5, 8, device=device))
    assert counted == products + 2 * 2 * 5 * 5 * 4
    assert torch.backends.mha.get_fastpath_enabled(), "as it was"


@pytest.mark.parametrize(
    ("module", "inputs", "name"),
    [
        (nn.Bilinear(3, 4, 5), (torch.zeros(2, 3), torch.zeros(2, 4)), "aten::_trilinear"),
        (Plain(torch.fft.rfft), (torch.zeros(8),), "aten::_fft_r2c"),
        (Plain(torch.cdist), (torch.zeros(2, 3), torch.zeros(2, 3)), "aten::_cdist_forward"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_multiplies_in_another_way_is_refused_by_name(
    module: nn.Module, inputs: tuple[Tensor, ...], name: str
) -> None:
    with pytest.raises(InputError, match=f"^{name}.*: its multiply-adds are not known; write"):
        count_multiply_adds(module, *inputs)


def test_an_operator_of_another_library_is_refused() -> None:
    @torch.library.custom_op("gdas_test::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(InputError, match=r"^gdas_test::double: "):
        count_multiply_adds(Plain(double), IMAGE)


def test_a_frozen_layer_stays_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout())
    network[1].eval()
    count_multiply_adds(network, IMAGE)
    assert [part.training for part in network.modules()] == [True, True, False, True]
