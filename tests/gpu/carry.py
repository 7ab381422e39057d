"""Real images for `real`, in one file:

    python -m tests.gpu.carry DATA FILE [--images 12000]

writes the first training images of CIFAR-10 under DATA to an Arrow file, 3 kB an image.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gdas.data.arrow import Images, read_images, write_images
from gdas.data.images import open_images

IDENTITY = "the first training images of CIFAR-10"
FILE = Path(".gpu-data/cifar10.arrow")
"""Where `real` looks; git ignores it."""


def carry(data: Path, file: Path, count: int) -> None:
    images = open_images("cifar10", "train", data)
    write_images(
        file,
        images.images_NCHW[:count].numpy(),
        images.labels_N[:count].numpy(),
        classes=images.classes,
        identity=IDENTITY,
    )


def carried(file: Path) -> Images:
    """The images of such a file."""
    return read_images(file, identity=IDENTITY, verify=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=12_000)
    args = parser.parse_args(arguments)
    carry(args.data, args.file, args.images)
    print(f"{args.file}: {args.images} images, {args.file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
