"""Average pooling's own gradient is PyTorch's, on a device where that is right."""

from __future__ import annotations

import pytest
import torch

from gdas.cnn import pooling
from gdas.cnn.operations import Style, build_operation


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_is_that_of_pytorch_in_the_layout_of_the_image(
    monkeypatch: pytest.MonkeyPatch, stride: int, side: int, layout: torch.memory_format
) -> None:
    operation = build_operation("avg_pool_3x3", 4, stride, Style(affine=False, pooling_norm=False))
    x = torch.randn(2, 4, side, side, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    plain = operation(x)
    towards = torch.randn_like(plain)
    (right,) = torch.autograd.grad(plain, x, towards)
    monkeypatch.setattr(pooling, "RIGHT_ON", ())
    own = operation(x)
    assert own.grad_fn is not None and "AveragePool" in type(own.grad_fn).__name__
    (found,) = torch.autograd.grad(own, x, towards)
    torch.testing.assert_close(own, plain, rtol=0, atol=0)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-14)
    assert found.is_contiguous(memory_format=layout)
