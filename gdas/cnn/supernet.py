"""The supernet: every cell has all operations, and a pass runs the picked ones (section 3.2).

Shapes: B batch, C channels, H and W height and width, E edges, K operations.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import FixedReductionCell, SearchCell
from gdas.cnn.derive import edge_list
from gdas.cnn.fused.layers import covers_input
from gdas.cnn.fused.walk import Visit, fixed_plan, search_plan, stem_sources, visit, walk
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.layout import Macro, Stem, Wiring, build_stem, cell_places, check_network
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Style, Zero
from gdas.sampler import Pick

CellKind = Literal["normal", "reduce", "fixed"]
LOGIT_SCALE = 1e-3
"""Standard deviation of the initial logits (authors' code)."""
COMPILED_GRAPHS = 256
"""How many graphs torch.compile keeps: all operations in two steps, three sizes, two strides.

Beyond this number, operations run uncompiled, with a warning.
"""


class Supernet(nn.Module):
    """The shared weights W of all architectures.

    Args:
        classes: number of classes.
        channels: C, 16 in the paper.
        normals_per_block: N, 2 in the paper.
        nodes: how many computed nodes a cell has, 4 in the paper.
        fixed_reduction: whether only the normal cell is searched (FRC, section 3.3).
        stem, macro: see gdas.cnn.layout.
        pooling_norm, bias_without_affine: see gdas.cnn.operations.Style.
        wiring: the wiring of the fixed reduction cell.
        fixed_affine: whether the fixed reduction cell has affine batch norms (2019 yes, 2020 no).
        operations: what an edge chooses from; those from outside are imported (gdas.outside).

    Attributes:
        kinds: for every cell, "normal", "reduce" (searched) or "fixed".
        fused: whether cells run with the kernels of gdas.cnn.fused where those cover them.
    """

    fused: bool = False

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 16,
        normals_per_block: int = 2,
        nodes: int = 4,
        fixed_reduction: bool = False,
        stem: Stem = "cifar",
        macro: Macro = "3n+2",
        pooling_norm: bool = True,
        bias_without_affine: bool = False,
        wiring: Wiring = "figure",
        fixed_affine: bool = True,
        operations: Sequence[str] = OPERATIONS,
    ) -> None:
        super().__init__()
        check_network(classes, channels, normals_per_block, stem, macro)
        style = Style(False, pooling_norm, bias_without_affine)
        fixed_style = Style(fixed_affine, pooling_norm, bias_without_affine)
        self.nodes = nodes
        self.operations = tuple(operations)
        self.stem = build_stem(stem, channels)
        before_last = last = self.stem.out_channels
        self.cells = nn.ModuleList()
        self.kinds: list[CellKind] = []
        for place in cell_places(channels, normals_per_block, macro, stem):
            if place.reduction and fixed_reduction:
                fixed = FixedReductionCell(
                    before_last,
                    last,
                    place.channels,
                    fixed_style,
                    last_reduced=place.last_reduced,
                    wiring=wiring,
                )
                self.cells.append(fixed)
                self.kinds.append("fixed")
                width = fixed.multiplier * place.channels
            else:
                self.cells.append(
                    SearchCell(
                        before_last,
                        last,
                        place.channels,
                        style,
                        nodes=nodes,
                        reduction=place.reduction,
                        last_reduced=place.last_reduced,
                        operations=operations,
                    )
                )
                self.kinds.append("reduce" if place.reduction else "normal")
                width = nodes * place.channels
            before_last, last = last, width
        self.last_activation = (
            nn.Sequential(BatchNorm(last), nn.ReLU()) if macro == "3n" else nn.Identity()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    @property
    def searched(self) -> list[CellKind]:
        """The cell types that have logits, in fixed order."""
        kinds: tuple[CellKind, ...] = ("normal", "reduce")
        return [kind for kind in kinds if kind in self.kinds]

    def forward(
        self,
        images_BCHW: Tensor,
        picks: Sequence[Sequence[Pick]],
        gates: Sequence[Tensor | None] | None = None,
        samples: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Class scores of the picked architecture, B by the number of classes.

        Args:
            picks: for every cell, the operations that it runs (ignored by a fixed cell).
            gates: for every cell, its gate_EK on the images' device; in the alpha step only.
            samples: for every cell, what each image runs, if images differ.
        """
        if self.fused and self.training and samples is None and covers_input(images_BCHW):
            return self._fused_scores(images_BCHW, picks, gates)
        s0_BCHW, s1_BCHW = self.stem(images_BCHW)
        out_BCHW = s1_BCHW
        for i, cell in enumerate(self.cells):
            if i:  # in place, since concatenation does not save its result for the backward pass
                s0_BCHW, s1_BCHW = s1_BCHW, F.relu(out_BCHW, inplace=True)
            if self.kinds[i] == "fixed":
                out_BCHW = cell(s0_BCHW, s1_BCHW, None)
            else:
                gate = None if gates is None else gates[i]
                sample = None if samples is None else samples[i]
                out_BCHW = cell(s0_BCHW, s1_BCHW, picks[i], gate, sample)
        pooled_BC = self.pool(self.last_activation(out_BCHW)).flatten(1)
        scores: Tensor = self.classifier(pooled_BC)
        return scores

    def _fused_scores(
        self,
        images_BCHW: Tensor,
        picks: Sequence[Sequence[Pick]],
        gates: Sequence[Tensor | None] | None,
    ) -> Tensor:
        visits: list[Visit] = []
        for i, cell in enumerate(self.cells):
            if self.kinds[i] == "fixed":
                visits.append(visit(cell, fixed_plan(cell), partial(cell, keep_DB=None)))
            else:
                gate = None if gates is None else gates[i]
                plain = partial(cell, picks=picks[i], gate_EK=gate)
                visits.append(visit(cell, search_plan(cell, picks[i], gate), plain, gate_EK=gate))
        last = walk(*stem_sources(self.stem, images_BCHW), visits)
        pooled_BC = last.pooled(self.last_activation, self.pool)
        scores: Tensor = self.classifier(pooled_BC)
        return scores

    def compile_operations(self) -> None:
        """Compile the parts of each cell separately; their parameters keep their names.

        Since a draw decides what runs, a whole pass would be another graph every time. Operations
        of the same kind and shape share one compiled graph wherever they are.
        """
        for cell in self.cells:
            pieces: list[nn.Module] = [cell]
            if isinstance(cell, SearchCell):
                pieces = [cell.preprocess, *(piece for edge in cell.edges for piece in edge)]  # type: ignore[attr-defined]
            for piece in pieces:
                if not isinstance(piece, (nn.Identity, Zero)):
                    _compile(piece)

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Logits A for every searched cell type: E x K, normal with sd 0.001, on the CPU."""
        shape = (len(edge_list(self.nodes)), len(self.operations))
        return {
            kind: torch.randn(shape, generator=generator).mul_(LOGIT_SCALE).requires_grad_()
            for kind in self.searched
        }


def _compile(piece: nn.Module) -> None:
    """Compile a module in place, with room for COMPILED_GRAPHS graphs.

    Before PyTorch 2.14 the limit is not an argument but a setting of the whole process.
    """
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        piece.compile(dynamic=False, recompile_limit=COMPILED_GRAPHS)
        return
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, COMPILED_GRAPHS)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, COMPILED_GRAPHS)
    piece.compile(dynamic=False)
