"""A contender's peak memory, measured in a process that does nothing else.

    python -m tests.bench.peak KIND CONTENDER SIZE REPEATS

Prints a line of JSON for tests.bench.timing.memory_of.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.bench.steps import KINDS
from tests.bench.timing import step_memory


def main() -> None:
    kind, contender, size, repeats = sys.argv[1:]
    torch.set_num_threads(1)
    # What PyTorch loads and sets up at its first step is nobody's memory of a step.
    tiny = KINDS[kind].sizes["tiny"]
    step_memory(KINDS[kind].build(tiny, 1, [contender])[contender], 1)
    steps = KINDS[kind].build(json.loads(size), int(repeats), [contender])[contender]
    print(json.dumps(step_memory(steps, int(repeats))))


if __name__ == "__main__":
    main()
