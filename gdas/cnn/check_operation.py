"""Try operations from outside before a search begins: what a network would misread is refused.

Each is built and run as the cells will do it, for a moment and on random maps: at both strides, as
in the supernet and as in a derived network, and without data for the estimates.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gdas.cnn.layout import Stem
from gdas.counting import multiply_adds
from gdas.errors import InputError, one_line
from gdas.outside import import_operation, outside

BATCH = 2


def check_operations(names: Sequence[str], channels: int, side: int, stem: Stem) -> None:
    """Import and try the operations from outside among `names`; the others need no check.

    Args:
        channels: C of the first cells.
        side: of the images, in pixels.
        stem: the ImageNet stem halves images three times.

    Raises:
        InputError: an operation cannot be imported or does not do as it must.
    """
    for name in outside(names):
        build = import_operation(name)
        for stride, at, affine in _uses(side, stem):
            where = f"operations={name}: with {channels} channels, stride={stride}, affine={affine}"
            with torch.random.fork_rng(devices=[]), _refused_draws(where):
                torch.manual_seed(0)
                _check(build, channels, stride, at, where, affine=affine)


@contextmanager
def _refused_draws(where: str) -> Iterator[None]:
    """Refuse numbers from Python's or NumPy's own generators, and put these back as they were.

    Raises:
        InputError: one was drawn from.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
        same = map(np.array_equal, numpy, np.random.get_state())
        drawn = random.getstate() != python or not all(same)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
    if drawn:
        raise InputError(
            f"{where} it draws from random or numpy.random, which no seed of a job reaches, so "
            "that the same search would end otherwise; draw with PyTorch, when it is built"
        )


def _uses(side: int, stem: Stem) -> Iterator[tuple[int, int, bool]]:
    """Stride, side of the map and whether batch norms are affine, wherever cells use an operation.

    Two reductions halve the maps.
    """
    for _ in range(3 if stem == "imagenet" else 0):
        side = -(-side // 2)
    for _ in range(2):
        for affine in (False, True):
            yield 1, side, affine
            yield 2, side, affine
        side = -(-side // 2)
    yield 1, side, False


def _check(
    build: Callable[..., object], channels: int, stride: int, side: int, where: str, *, affine: bool
) -> None:
    """Build an operation, and run it forwards and backwards."""
    try:
        operation = build(channels, stride, affine)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(f"{where} it fails, {_said(error)}") from None
    if not isinstance(operation, nn.Module):
        raise InputError(
            f"{where} it returns {type(operation).__name__}; it must return a torch.nn.Module"
        )
    state = _state(operation)
    x_BCHW = torch.randn(BATCH, channels, side, side).to(memory_format=torch.channels_last)
    x_BCHW.requires_grad_()
    given_BCHW = x_BCHW * 1
    before, noise = given_BCHW.detach().clone(), torch.get_rng_state()
    try:
        out = operation(given_BCHW)
    except (Exception, SystemExit) as error:
        raise InputError(f"{where} it fails on maps of {side} x {side}, {_said(error)}") from None
    _check_output(out, before, stride, where)
    if not torch.equal(given_BCHW.detach(), before):
        raise InputError(
            f"{where} it changes its input, which other operations read too; use no inplace=True "
            "on it, and no x += ..."
        )
    if not torch.equal(noise, torch.get_rng_state()):
        raise InputError(
            f"{where} it draws random numbers while it runs, so that a resumed search would end "
            "otherwise; draw them when it is built, or leave them out"
        )
    try:
        if out.requires_grad:
            out.sum().backward()
    except (Exception, SystemExit) as error:
        raise InputError(f"{where} its backward pass fails, {_said(error)}") from None
    _check_again(operation, state, before, out, where)
    _check_without_data(build, (channels, stride, affine), before, where)


def _state(operation: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint has of it: weights, and statistics such as those of batch norm."""
    found = operation.state_dict().items()
    return {name: value.clone() for name, value in found if isinstance(value, Tensor)}


def _check_again(
    operation: nn.Module, state: dict[str, Tensor], x_BCHW: Tensor, out: Tensor, where: str
) -> None:
    """Run it again from the same checkpoint and compare."""
    with torch.no_grad():
        for name, value in operation.state_dict().items():
            if isinstance(value, Tensor):
                value.copy_(state[name])
        try:
            again = operation(x_BCHW.clone())
        except (Exception, SystemExit) as error:
            raise InputError(f"{where} it fails when it runs again, {_said(error)}") from None
    if not isinstance(again, Tensor) or not torch.equal(again, out):
        raise InputError(
            f"{where} it puts out other numbers when it runs again on the same input with the same "
            "weights, so that a resumed search would end otherwise; draw nothing and count nothing "
            "while it runs, or keep the count in a buffer"
        )


def _check_output(out: object, x_BCHW: Tensor, stride: int, where: str) -> None:
    height, width = (-(-size // stride) for size in x_BCHW.shape[2:])
    shape = (*x_BCHW.shape[:2], height, width)
    if not isinstance(out, Tensor):
        raise InputError(f"{where} it puts out {type(out).__name__}; it must put out a tensor")
    if out.shape != shape:
        raise InputError(
            f"{where} it turns {tuple(x_BCHW.shape)} into {tuple(out.shape)}; must be {shape}, the "
            f"same channels{' and sides' if stride == 1 else ', and half the sides, rounded up'}"
        )
    if out.dtype != x_BCHW.dtype:
        raise InputError(f"{where} it turns float32 into {out.dtype}; it must keep the type")
    if wrong := int((~out.isfinite()).sum()):
        raise InputError(
            f"{where} {wrong} of the {out.numel()} numbers that it puts out are not finite; mind "
            "divisions by 0, and roots and logarithms of what is not positive"
        )


def _check_without_data(
    build: Callable[..., object], arguments: tuple[int, int, bool], x_BCHW: Tensor, where: str
) -> None:
    """Count its multiply-adds, on PyTorch's meta device, as the estimates do."""
    with torch.device("meta"):
        operation = build(*arguments)
    assert isinstance(operation, nn.Module)
    try:
        multiply_adds(operation.eval(), x_BCHW.to("meta"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{where} it does not run on PyTorch's meta device, on which its cost is counted, "
            f"{_said(error)}; make tensors by x.new_zeros(...), and ask no values of them"
        ) from None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error, 200)}"
