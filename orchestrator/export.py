"""A trained network as a file for other programs: `python -m orchestrator.export OUT:FINAL`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from gdas.errors import InputError
from orchestrator.terminal.command import (
    add_data,
    add_operations,
    command_parser,
    refuse_no_folder,
    run_command,
    say_next,
)

if TYPE_CHECKING:  # the help needs no PyTorch
    from orchestrator.driver.finals import Final

FORMATS = {
    ".onnx": "ONNX, for onnxruntime and many others",
    ".pt2": "an exported program, for PyTorch alone",
    ".safetensors": "the weights alone, for this package",
}

MORE = f"""examples:
  python -m orchestrator.export runs/smoke:gdas-frc-digits --to net.onnx --pixels
  python -m orchestrator.export runs/smoke:gdas-frc-digits --to net.pt2
  python -m orchestrator.export s3://BUCKET/runs/paper:v1-seed0 --to v1.safetensors

formats, by FILE's ending:
{chr(10).join(f"  {ending:<14}{what}" for ending, what in FORMATS.items())}

The file takes a batch of any size, B x 3 x side x side, and gives class scores, before a softmax,
in evaluation mode. With --pixels it takes uint8 pixels and normalises them; without, float32
images that are normalised already. Its metadata (labels, mean and deviation, cell, settings,
metrics) are JSON under the key gdas. Before it takes its name, the file is loaded and compared with
the network on test images. experiments/recipes.md loads it without this package."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.export",
        "Write the network of a finished final to a file that other programs read.",
        MORE,
        done="it was written",
    )
    parser.add_argument("final", metavar="OUT:FINAL", help="a study's folder and a final's name")
    parser.add_argument("--to", type=Path, metavar="FILE", required=True, help="what to write")
    parser.add_argument(
        "--pixels", action="store_true", help="take uint8 pixels and normalise them inside"
    )
    add_data(parser, "the one that the study read")
    add_operations(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _export, arguments)


def _export(options: argparse.Namespace) -> int:
    path: Path = options.to
    if path.suffix not in FORMATS:
        raise InputError(f"--to {path}: must end with {', '.join(FORMATS)}")
    if options.pixels and path.suffix == ".safetensors":
        raise InputError(f"--pixels: {path} has the weights alone, which normalise nothing")
    refuse_no_folder(path)
    from gdas.cnn.export import export  # here: the help needs no PyTorch
    from orchestrator.driver.finals import images_to_check, open_final

    final = open_final(options.final, options.operations, options.data)
    images, what = images_to_check(final)
    data = final.config.data if options.pixels else None
    if not options.pixels:
        from gdas.data.augment import normalise

        images = normalise(images, final.config.data)
    try:
        apart = export(
            final.model.network, path, images, metadata(final, pixels=options.pixels), data
        )
    except OSError as error:
        raise InputError(f"--to {path}: cannot write ({error.strerror})") from None
    size = path.stat().st_size / 2**20
    print(
        f"written: {path} ({size:.1f} MiB); on {what} its scores are the network's to {apart:.1g}"
    )
    say_next(f"python -m orchestrator.predict {quote(options.final)} FOLDER")
    return 0


def metadata(final: Final, *, pixels: bool) -> dict[str, Any]:
    """What the file says of itself."""
    data = final.config.data
    return {
        "format": "gdas-export/1",
        "final": final.job.name,
        "job": final.job.id,
        "labels": final.labels,
        "input": {
            "shape": ["batch", 3, final.size, final.size],
            "type": "uint8, 0 to 255" if pixels else "float32, (pixel / 255 - mean) / std",
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "output": "scores, batch x labels, before a softmax",
        "metrics": final.about["metrics"],
        "parameters": final.about.get("parameters"),
        "genotype": final.about["genotype"],
        "settings": final.about["config"],
    }


if __name__ == "__main__":
    sys.exit(main())
