"""What other programs count for published networks: their own results, to the digit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.network import Network
from gdas.metrics import count_multiply_adds
from gdas.other_counts import COUNTERS, RULES, Counter, multiply_adds_as
from orchestrator import cell

# Results of the programs themselves, of the versions in RULES with PyTorch 2.14.1, for these
# networks with PyTorch's own layers in the places of ours.
MULTIPLY_ADDS: dict[tuple[str, str], dict[Counter, int]] = {
    ("GDAS_V1", "cifar"): {
        "thop": 537_935_040,
        "fvcore": 528_700_032,
        "ptflops": 538_487_434,
        "torchinfo": 519_466_546,
    },
    ("GDAS_F1", "cifar"): {
        "thop": 417_196_224,
        "fvcore": 410_007_168,
        "ptflops": 417_416_842,
        "torchinfo": 402_809_698,
    },
    ("GDAS_V1", "imagenet"): {
        "thop": 596_768_200,
        "fvcore": 588_907_800,
        "ptflops": 597_278_000,
        "torchinfo": 581_048_450,
    },
}


@pytest.mark.parametrize(("name", "stem"), MULTIPLY_ADDS)
def test_counts_are_the_programs_own(name: str, stem: str) -> None:
    imagenet = stem == "imagenet"
    with torch.device("meta"):
        network = Network(
            PUBLISHED[name],
            1000 if imagenet else 10,
            channels=50 if imagenet else 36,
            normals_per_block=4 if imagenet else 6,
            stem="imagenet" if imagenet else "cifar",
        )
        image = torch.zeros(1, 3, *(2 * [224 if imagenet else 32]))
    frozen = next(part for part in network.modules() if isinstance(part, nn.BatchNorm2d)).eval()
    found = {counter: multiply_adds_as(counter, network, image) for counter in COUNTERS}
    assert found == MULTIPLY_ADDS[name, stem]
    assert network.training and not frozen.training and set(RULES) == set(COUNTERS)
    assert count_multiply_adds(network, image) not in found.values()


def test_the_command_knows_all_of_them() -> None:
    assert cell.COUNTERS == COUNTERS
