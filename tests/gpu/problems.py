"""The losses that tests.gpu.right differentiates: the same numbers in every arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import draw_architecture
from gdas.cnn.cell import FixedReductionCell, SearchCell
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.network import Network, draw_drop_path
from gdas.cnn.operations import Style, build_operation
from gdas.cnn.supernet import Supernet
from gdas.config import SamplerConfig
from gdas.randomness import generator, initial_weights
from gdas.rnn.config import Dropouts
from gdas.rnn.derive import CELL_TYPE
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.regularisation import draw_masks, temporal_penalty
from gdas.rnn.supernet import RecurrentSupernet
from tests.gpu.setup import CLASSES, TAU
from tests.gpu.sizes import Sizes


class Way(NamedTuple):
    """An arithmetic and a layout."""

    dtype: torch.dtype = torch.float32
    bfloat16: bool = False
    tf32: bool = False
    channels_last: bool = False


TRUTH = Way(dtype=torch.float64)
WAYS = {
    "float32": Way(),
    "float32, channels last": Way(channels_last=True),
    "TensorFloat32, channels last": Way(tf32=True, channels_last=True),
    "bfloat16": Way(bfloat16=True),
    "bfloat16, channels last": Way(bfloat16=True, channels_last=True),
}
TEXT_WAYS = {name: way for name, way in WAYS.items() if not way.channels_last}


class Problem(NamedTuple):
    """A loss and what it is differentiated by."""

    loss: Callable[[], Tensor]
    leaves: dict[str, Tensor]


Build = Callable[[Way, torch.device], Problem]


def random(way: Way, device: torch.device, *shape: int, seed: int = 0) -> Tensor:
    """The same numbers in every arithmetic."""
    x = torch.randn(shape, generator=generator(seed, "input")).to(device, way.dtype)
    return x.contiguous(memory_format=torch.channels_last) if way.channels_last else x


def placed(make: Callable[[], nn.Module], way: Way, device: torch.device) -> Any:
    """A module with the same weights in every arithmetic, in training mode."""
    with initial_weights(0):
        module = make()
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    return module.to(memory_format=layout).to(device, way.dtype).train()


def weighed(out: Tensor, way: Way) -> Tensor:
    """The mean product with random numbers, so that every output counts differently."""
    weights = torch.randn(out.shape, generator=generator(0, "weights of outputs"))
    return (out.to(way.dtype) * weights.to(out.device, way.dtype)).mean()


def operation(name: str, stride: int, channels: int, batch: int) -> Build:
    def build(way: Way, device: torch.device) -> Problem:
        module = placed(
            lambda: build_operation(name, channels, stride, Style(affine=True)), way, device
        )
        x = random(way, device, batch, channels, 32, 32).requires_grad_()
        return Problem(
            lambda: weighed(module(x), way), {"input": x, **dict(module.named_parameters())}
        )

    return build


def search_cell(reduction: bool, channels: int, batch: int) -> Build:
    """All operations of all edges, each with its gate."""

    def build(way: Way, device: torch.device) -> Problem:
        cell: SearchCell = placed(
            lambda: SearchCell(
                *(4 * channels, 4 * channels, channels, Style(affine=False)),
                nodes=4,
                reduction=reduction,
                last_reduced=False,
            ),
            way,
            device,
        )
        s0, s1 = (random(way, device, batch, 4 * channels, 16, 16, seed=i) for i in (0, 1))
        edges, operations = len(cell.edge_list), len(cell.edges[0])  # type: ignore[arg-type]
        gate = torch.rand(edges, operations, generator=generator(0, "gate"))
        gate_EK = gate.to(device, way.dtype).requires_grad_()
        picks = [(e, k) for e in range(edges) for k in range(operations)]
        return Problem(
            lambda: weighed(cell(s0.relu(), s1.relu(), picks, gate_EK), way),
            {"gate": gate_EK, **dict(cell.named_parameters())},
        )

    return build


def fixed_cell(channels: int, batch: int) -> Build:
    def build(way: Way, device: torch.device) -> Problem:
        cell = placed(
            lambda: FixedReductionCell(
                4 * channels, 4 * channels, channels, Style(affine=True), last_reduced=False
            ),
            way,
            device,
        )
        s0, s1 = (random(way, device, batch, 4 * channels, 16, 16, seed=i) for i in (0, 1))
        return Problem(
            lambda: weighed(cell(s0.relu(), s1.relu(), None), way), dict(cell.named_parameters())
        )

    return build


def labels(batch: int, device: torch.device, seed: int) -> Tensor:
    """Classes of a batch's images."""
    return torch.randint(CLASSES, (batch,), generator=generator(seed, "labels")).to(device)


def supernet(
    sizes: Sizes, *, fixed: bool, alpha: bool, draw: int, batch: int, images: int = 0
) -> Build:
    """A W step's or an alpha step's loss, by the weights or by the logits.

    Args:
        draw, images: which architecture and which batch.
    """

    def build(way: Way, device: torch.device) -> Problem:
        network: Supernet = placed(
            lambda: Supernet(
                CLASSES,
                channels=sizes.channels,
                normals_per_block=sizes.normals,
                fixed_reduction=fixed,
            ),
            way,
            device,
        )
        x = random(way, device, batch, 3, 32, 32, seed=images)
        labels_B = labels(batch, device, images)
        logits = {
            kind: a.detach().to(way.dtype).requires_grad_()
            for kind, a in network.initial_logits(generator(0, "logits")).items()
        }
        network.requires_grad_(not alpha)

        def loss() -> Tensor:
            drawn = draw_architecture(
                logits,
                network.kinds,
                SamplerConfig(),
                TAU,
                generator(draw, "gumbel"),
                gate_device=device if alpha else None,
            )
            return F.cross_entropy(network(x, drawn.picks, drawn.gates), labels_B)

        return Problem(loss, logits if alpha else dict(network.named_parameters()))

    return build


def training(channels: int, normals: int, batch: int, side: int) -> Build:
    """A final training's loss on CIFAR's or ImageNet's images, with the auxiliary head."""
    stem = "imagenet" if side > 40 else "cifar"

    def build(way: Way, device: torch.device) -> Problem:
        network: Network = placed(
            lambda: Network(
                PUBLISHED["GDAS_V1"],
                CLASSES,
                channels=channels,
                normals_per_block=normals,
                stem=stem,  # type: ignore[arg-type]
                auxiliary=stem == "cifar" or side > 192,
            ),
            way,
            device,
        )
        x, labels_B = random(way, device, batch, 3, side, side), labels(batch, device, 0)
        keep_DB = draw_drop_path(network, batch, 0.2, generator(0, "drop path"))
        assert keep_DB is not None
        kept = keep_DB.to(device)

        def loss() -> Tensor:
            scores, auxiliary = network(x, kept)
            total = F.cross_entropy(scores, labels_B)
            if auxiliary is not None:
                total = total + 0.4 * F.cross_entropy(auxiliary, labels_B)
            return total

        return Problem(loss, dict(network.named_parameters()))

    return build


def language(size: tuple[int, int, int, int], *, search: bool, alpha: bool = False) -> Build:
    """A language model's or a recurrent search's loss."""
    hidden, vocabulary, batch, bptt = size

    def build(way: Way, device: torch.device) -> Problem:
        def make() -> nn.Module:
            if search:
                return RecurrentSupernet(vocabulary, hidden=hidden)
            return LanguageModel(PUBLISHED_RECURRENT["RNN_GDAS"], vocabulary, hidden)

        model = placed(make, way._replace(channels_last=False), device)
        shape = (bptt + 1, batch)
        text_TB = torch.randint(vocabulary, shape, generator=generator(0, "text")).to(device)
        masks = draw_masks(
            Dropouts(),
            vocabulary=vocabulary,
            batch=batch,
            hidden=hidden,
            generator=generator(0, "dropout"),
            device=device,
        )
        start_BN = model.initial_hidden(batch)
        logits = {
            kind: a.detach().to(way.dtype).requires_grad_()
            for kind, a in (model.initial_logits(generator(0, "logits")) if search else {}).items()
        }
        model.requires_grad_(not alpha)

        def loss() -> Tensor:
            given: list[Any] = []
            if search:
                drawn = draw_architecture(
                    logits,
                    [CELL_TYPE],
                    SamplerConfig(),
                    TAU,
                    generator(0, "gumbel"),
                    gate_device=device if alpha else None,
                )
                given = [drawn.picks[0], drawn.gates[0] if drawn.gates is not None else None]
            scores, outputs, _ = model(text_TB[:-1], start_BN, *given, masks)
            entropy = F.cross_entropy(scores.flatten(0, 1), text_TB[1:].flatten())
            penalty = temporal_penalty(outputs).to(entropy.dtype)
            return entropy if alpha else entropy + 1e-3 * penalty

        return Problem(loss, logits if alpha else dict(model.named_parameters()))

    return build
