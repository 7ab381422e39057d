"""Parameters, multiply-adds and published cells, to the last digit.

The figures were measured on the authors' released classes. Networks are built on the meta device:
shapes only, no memory and no arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Generator

from gdas.cell_json import Edge
from gdas.cnn.genotype import OPERATIONS, PUBLISHED, Genotype, check_cell, random_genotype
from gdas.cnn.layout import ImageNetStem
from gdas.cnn.network import Network
from gdas.cnn.supernet import Supernet
from gdas.errors import InputError
from gdas.metrics import count_multiply_adds, count_parameters


class Figure(NamedTuple):
    name: str
    stem: str
    classes: int
    channels: int
    normals: int
    total: int
    auxiliary: int
    parameters: int
    multiply_adds: int


FIGURES = [
    Figure("GDAS_V1", "cifar", 10, 36, 6, 3_845_208, 476_426, 3_368_782, 519_428_746),
    Figure("GDAS_V1", "cifar", 100, 36, 6, 3_966_348, 545_636, 3_420_712, 519_480_676),
    Figure("GDAS_F1", "cifar", 10, 36, 6, 3_019_440, 476_426, 2_543_014, 402_781_834),
    Figure("GDAS_F1", "cifar", 100, 36, 6, 3_140_580, 545_636, 2_594_944, 402_833_764),
    Figure("GDAS_GF", "cifar", 10, 36, 6, 3_476_064, 476_426, 2_999_638, 482_297_482),
    Figure("GDAS_FG", "cifar", 10, 36, 6, 3_388_584, 476_426, 2_912_158, 439_913_098),
    Figure("DARTS_V1", "cifar", 10, 36, 6, 3_645_840, 476_426, 3_169_414, 500_987_530),
    Figure("DARTS_V2", "cifar", 10, 36, 6, 3_825_768, 476_426, 3_349_342, 528_359_050),
    Figure("PDARTS", "cifar", 10, 36, 6, 3_910_224, 476_426, 3_433_798, 532_174_474),
    Figure("GDAS_V1", "imagenet", 1000, 50, 4, 6_609_947, 1_264_872, 5_345_075, 581_010_000),
    Figure("GDAS_V1", "imagenet", 1000, 52, 4, 7_003_410, 1_268_968, 5_734_442, 626_102_008),
    Figure("GDAS_F1", "imagenet", 1000, 52, 4, 5_699_354, 1_268_968, 4_430_386, 496_734_952),
    Figure("DARTS_V2", "imagenet", 1000, 48, 4, 5_979_528, 1_260_776, 4_718_752, 529_912_552),
    Figure("DARTS_V2", "imagenet", 1000, 50, 4, 6_344_247, 1_264_872, 5_079_375, 573_473_800),
]


def build(name: str, stem: Any, classes: int, channels: int, normals: int) -> Network:
    with torch.device("meta"):
        return Network(
            PUBLISHED[name],
            classes,
            channels=channels,
            normals_per_block=normals,
            stem=stem,
            auxiliary=True,
        )


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f"{f.name}-{f.classes}-C{f.channels}")
def test_parameters_and_multiply_adds_are_the_authors_to_the_last_digit(figure: Figure) -> None:
    network = build(figure.name, figure.stem, figure.classes, figure.channels, figure.normals)
    size = 32 if figure.stem == "cifar" else 224
    image = torch.empty(1, 3, size, size, device="meta")
    assert count_parameters(network, without=None) == figure.total
    assert network.auxiliary is not None
    assert count_parameters(network.auxiliary, without=None) == figure.auxiliary
    assert count_parameters(network) == figure.parameters
    assert count_multiply_adds(network, image) == figure.multiply_adds
    assert network.training, "counting restores the mode"


PRINTED = [  # name, stem, classes, channels, normals, millions of parameters in its paper or code
    ("PC_DARTS_CIFAR", "cifar", 10, 36, 6, "3.63"),
    ("PC_DARTS_CIFAR", "imagenet", 1000, 48, 4, "5.3"),
    ("PC_DARTS_IMAGENET", "imagenet", 1000, 48, 4, "5.3"),
    ("SGAS_CRI1", "cifar", 10, 36, 6, "3.80"),
    ("SGAS_CRI1", "imagenet", 1000, 48, 4, "5.29"),
    ("SGAS_CRI2", "cifar", 10, 36, 6, "4.09"),
    ("SGAS_CRI2", "imagenet", 1000, 48, 4, "5.70"),
    ("DRNAS_CIFAR", "cifar", 10, 36, 6, "4.1"),
    ("DRNAS_IMAGENET", "imagenet", 1000, 48, 4, "5.7"),
]


@pytest.mark.parametrize("printed", PRINTED, ids=lambda printed: f"{printed[0]}-{printed[1]}")
def test_later_cells_have_the_parameters_that_are_printed(
    printed: tuple[str, str, int, int, int, str],
) -> None:
    name, stem, classes, channels, normals, millions = printed
    parameters = count_parameters(build(name, stem, classes, channels, normals))
    digits = len(millions.partition(".")[2])
    assert f"{parameters / 1e6:.{digits}f}" == millions


CELL_BY_CELL = {
    ("GDAS_V1", "cifar", 10, 36, 6): (
        [3132],
        [23760, 25056, 26352, 26352, 26352, 26352, 123336, 83808]
        + [94176] * 5
        + [443664, 312768]
        + [354240] * 5,
        5770,
    ),
    ("GDAS_F1", "cifar", 10, 36, 6): (
        [3132],
        [18072, 19368, *[20664] * 4, 40032, 67248, *[77616] * 5, 157824, 258912, *[300384] * 5],
        5770,
    ),
    ("GDAS_V1", "imagenet", 1000, 50, 4): (
        [12075, 22600],
        [32800, 40300, 47800, 47800, 224500, 155600, *[175600] * 3, 829000, 591200, *[671200] * 3],
        801000,
    ),
    ("GDAS_F1", "imagenet", 1000, 52, 4): (
        [13026, 24440],
        [25272, 33384, 41496, 41496, 82784, 137072, *[158704] * 3, 327808, 533728, *[620256] * 3],
        833000,
    ),
}


@pytest.mark.parametrize("net", CELL_BY_CELL, ids=lambda net: f"{net[0]}-{net[1]}")
def test_parameters_of_every_cell_are_the_authors(net: tuple[str, str, int, int, int]) -> None:
    stems, cells, classifier = CELL_BY_CELL[net]
    network = build(*net)
    parts = (
        [network.stem.stem0, network.stem.stem1]
        if isinstance(network.stem, ImageNetStem)
        else [network.stem]
    )
    assert [count_parameters(part) for part in parts] == stems
    assert [count_parameters(cell) for cell in network.cells] == cells
    assert count_parameters(network.classifier) == classifier


def test_the_fixed_reduction_cell_refuses_fifty_channels() -> None:
    with pytest.raises(InputError, match="channels=50"):
        build("GDAS_F1", "imagenet", 1000, 50, 4)


CODE_2020: dict[str, Any] = {
    "macro": "3n",
    "bias_without_affine": True,
    "pooling_norm": False,
    "fixed_affine": False,
}


@pytest.mark.parametrize(
    ("fixed", "classes", "settings", "weights", "cells"),
    [
        (False, 10, {}, 1_930_618, 8),
        (False, 100, {}, 1_953_748, 8),
        (True, 10, {}, 1_341_946, 8),
        (True, 100, {}, 1_365_076, 8),
        (False, 10, CODE_2020, 1_343_034, 6),
        (True, 10, CODE_2020, 744_570, 6),
    ],
)
def test_supernet_weights_and_logits_are_the_authors(
    fixed: bool, classes: int, settings: dict[str, Any], weights: int, cells: int
) -> None:
    with torch.device("meta"):
        supernet = Supernet(classes, fixed_reduction=fixed, **settings)
    assert count_parameters(supernet) == weights
    assert len(supernet.cells) == cells
    logits = supernet.initial_logits(Generator().manual_seed(0))
    assert sum(a.numel() for a in logits.values()) == (112 if fixed else 224)
    assert list(logits) == (["normal"] if fixed else ["normal", "reduce"])
    assert all(a.shape == (14, 8) and a.requires_grad for a in logits.values())


def test_initial_logits_have_the_authors_small_spread_and_follow_their_generator() -> None:
    with torch.device("meta"):
        supernet = Supernet(10)
    drawn = [supernet.initial_logits(Generator().manual_seed(seed)) for seed in range(40)]
    values = torch.cat([a.detach().flatten() for logits in drawn for a in logits.values()])
    # 8,960 values: the sample sd is within 5 % with a false-alarm rate of about 2e-11.
    assert 0.95e-3 < float(values.std()) < 1.05e-3
    assert abs(float(values.mean())) < 1e-4
    again = supernet.initial_logits(Generator().manual_seed(0))
    assert torch.equal(again["normal"], drawn[0]["normal"])
    assert not torch.equal(drawn[0]["normal"], drawn[0]["reduce"])


V1_NORMAL: list[Edge] = [
    ("skip_connect", 0),
    ("skip_connect", 1),
    ("skip_connect", 0),
    ("sep_conv_5x5", 2),
    ("sep_conv_3x3", 3),
    ("skip_connect", 0),
    ("sep_conv_5x5", 4),
    ("sep_conv_3x3", 3),
]
V1_REDUCE: list[Edge] = [
    ("sep_conv_5x5", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_5x5", 2),
    ("sep_conv_5x5", 1),
    ("dil_conv_5x5", 2),
    ("sep_conv_3x3", 1),
    ("sep_conv_5x5", 0),
    ("sep_conv_5x5", 1),
]
F1_NORMAL: list[Edge] = [
    ("skip_connect", 0),
    ("skip_connect", 1),
    ("skip_connect", 0),
    ("sep_conv_3x3", 2),
    ("skip_connect", 0),
    ("sep_conv_3x3", 2),
    ("skip_connect", 0),
    ("sep_conv_3x3", 2),
]
DARTS_V1_NORMAL: list[Edge] = [
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 0),
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 0),
    ("skip_connect", 2),
]
DARTS_V1_REDUCE: list[Edge] = [
    ("max_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("skip_connect", 2),
    ("max_pool_3x3", 0),
    ("max_pool_3x3", 0),
    ("skip_connect", 2),
    ("skip_connect", 2),
    ("avg_pool_3x3", 0),
]
DARTS_V2_NORMAL: list[Edge] = [
    ("sep_conv_3x3", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 1),
    ("skip_connect", 0),
    ("skip_connect", 0),
    ("dil_conv_3x3", 2),
]
DARTS_V2_REDUCE: list[Edge] = [
    ("max_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("skip_connect", 2),
    ("max_pool_3x3", 1),
    ("max_pool_3x3", 0),
    ("skip_connect", 2),
    ("skip_connect", 2),
    ("max_pool_3x3", 1),
]
PDARTS_NORMAL: list[Edge] = [
    ("skip_connect", 0),
    ("dil_conv_3x3", 1),
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 3),
    ("sep_conv_3x3", 0),
    ("dil_conv_5x5", 4),
]
PDARTS_REDUCE: list[Edge] = [
    ("avg_pool_3x3", 0),
    ("sep_conv_5x5", 1),
    ("sep_conv_3x3", 0),
    ("dil_conv_5x5", 2),
    ("max_pool_3x3", 0),
    ("dil_conv_3x3", 1),
    ("dil_conv_3x3", 1),
    ("dil_conv_5x5", 3),
]


@pytest.mark.parametrize(
    ("name", "normal", "reduce"),
    [
        ("GDAS_V1", V1_NORMAL, V1_REDUCE),
        ("GDAS_F1", F1_NORMAL, None),
        ("GDAS_GF", V1_NORMAL, None),
        ("GDAS_FG", F1_NORMAL, V1_REDUCE),
        ("DARTS_V1", DARTS_V1_NORMAL, DARTS_V1_REDUCE),
        ("DARTS_V2", DARTS_V2_NORMAL, DARTS_V2_REDUCE),
        ("PDARTS", PDARTS_NORMAL, PDARTS_REDUCE),
    ],
)
def test_published_cells_are_those_of_the_paper(
    name: str, normal: list[Edge], reduce: list[Edge] | None
) -> None:
    genotype = PUBLISHED[name]
    assert genotype.name == name
    assert genotype.normal == tuple(normal)
    assert genotype.reduce == (None if reduce is None else tuple(reduce))


def distinct_sources(edges: tuple[Edge, ...]) -> bool:
    return all(edges[i][1] != edges[i + 1][1] for i in range(0, len(edges), 2))


def test_random_genotypes_are_valid_with_distinct_sources_and_cover_what_a_search_may_derive() -> (
    None
):
    used: set[tuple[int, Edge]] = set()
    for seed in range(300):
        genotype = random_genotype(seed)
        assert genotype.reduce is not None
        for edges in (genotype.normal, genotype.reduce):
            check_cell(edges, "random")
            assert len(edges) == 8
            assert distinct_sources(edges)
            used |= {(i // 2, edge) for i, edge in enumerate(edges)}
    # 14 (node, source) pairs, each with every operation but `none`.
    assert len({(node, source) for node, (_, source) in used}) == 14
    assert {name for _, (name, _) in used} == set(OPERATIONS) - {"none"}
    assert len(used) == 14 * 7


def test_a_random_genotype_depends_on_its_seed_alone_and_may_have_the_fixed_reduction() -> None:
    assert random_genotype(5) == random_genotype(5)
    cells = {genotype.normal for genotype in map(random_genotype, range(20))}
    assert len(cells) == 20
    fixed = random_genotype(5, fixed_reduction=True)
    assert fixed.reduce is None
    assert fixed.normal == random_genotype(5).normal
    assert len(random_genotype(5, nodes=7).normal) == 14
    assert isinstance(fixed, Genotype)
