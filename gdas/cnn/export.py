"""A trained network as one file for other programs: ONNX, PyTorch's .pt2, or weights alone.

The network is in evaluation mode and puts out class scores, for batches of any size. It takes
normalised float32 images or, with `pixels`, the uint8 pixels of an image file, which it normalises
itself. What the numbers mean is in the file's metadata, as JSON. Before a file takes its name, it
is loaded as its readers will do it and compared with the network.

Shapes: B batch, H and W height and width, K classes.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdas.data.augment import normalise
from gdas.data.settings import AnyImageData
from gdas.errors import InputError, one_line

FORMATS = (".onnx", ".pt2", ".safetensors")
METADATA = "gdas"
"""The key of the metadata in every format; in a .pt2 file, the name of an extra file."""
INPUT, OUTPUT = "images", "scores"
CLOSE = 1e-4
"""How far scores may be apart, relative to the largest."""


class Scores(nn.Module):
    """A network as it is exported.

    Args:
        network: gdas.cnn.network.Network; it is put into evaluation mode.
        data: with whose mean and standard deviation pixels are normalised; None: images come
            normalised.
    """

    def __init__(self, network: nn.Module, data: AnyImageData | None) -> None:
        super().__init__()
        self.network = network.eval()
        self.data = data

    def forward(self, images: Tensor) -> Tensor:
        """Scores B x K, before a softmax, of images B x 3 x H x W."""
        scores: Tensor
        scores, _ = self.network(images if self.data is None else normalise(images, self.data))
        return scores


def export(
    network: nn.Module,
    path: Path,
    images: Tensor,
    metadata: Mapping[str, Any],
    pixels: AnyImageData | None = None,
) -> float:
    """Write a network to a file that ends with one of FORMATS.

    Args:
        network: a network of images, on the CPU.
        images: uint8 images of the right size, on which the file is compared with the network; two
            or more.
        metadata: ready for JSON; stored beside the network.
        pixels: if the file is to take pixels, how they are normalised; None: it takes normalised
            images. A .safetensors file has the weights alone.

    Returns:
        The largest difference of a score.

    Raises:
        InputError: a package is missing, the network cannot be exported, or the file's scores are
            not the network's; nothing is written.
        OSError: the file cannot be written.
    """
    scores = Scores(network, pixels)
    beside = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    write, load = WAYS[path.suffix]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters' own insides
            write(scores, beside, images[:2], json.dumps(dict(metadata)))
            apart = _apart(load(beside, scores), scores, images)
        if apart > CLOSE:
            raise InputError(
                f"{path}: its scores are up to {apart:.2g} (relative) from the network's, so it "
                f"was not written; try another of {', '.join(FORMATS)}"
            )
        beside.replace(path)
    except ImportError as error:
        raise InputError(
            f"{path}: needs the package {error.name}; pip install onnx onnxscript onnxruntime "
            "safetensors (.pt2 needs PyTorch alone)"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
    return apart


def _apart(run: Callable[[Tensor], Tensor], scores: Scores, images: Tensor) -> float:
    """The largest relative difference, in batches of one, of two and of all images."""
    most = 0.0
    for batch in (images[:1], images[:2], images):
        ours, theirs = scores(batch), run(batch)
        if ours.shape != theirs.shape or not torch.isfinite(theirs).all():
            return float("inf")
        most = max(most, float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-6)))
    return most


def _exported(scores: Scores, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    try:
        return torch.export.export(scores, (example,), dynamic_shapes={INPUT: {0: batch}})
    except Exception as error:  # whatever it says of an operation of the user's
        raise InputError(
            f"this network cannot be exported: {type(error).__name__}: {one_line(error, 300)}; "
            ".safetensors takes its weights alone"
        ) from None


def _write_pt2(scores: Scores, path: Path, example: Tensor, metadata: str) -> None:
    torch.export.save(_exported(scores, example), path, extra_files={METADATA: metadata})


def _load_pt2(path: Path, _: Scores) -> Callable[[Tensor], Tensor]:
    loaded: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return loaded


def _write_onnx(scores: Scores, path: Path, example: Tensor, metadata: str) -> None:
    import onnxruntime  # here, so that a missing package is found before the work  # noqa: F401
    import onnxscript  # noqa: F401

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        _exported(scores, example),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA] = metadata
    program.save(path, external_data=False)


def _load_onnx(path: Path, _: Scores) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def _write_safetensors(scores: Scores, path: Path, _: Tensor, metadata: str) -> None:
    from safetensors.torch import save

    weights = {name: w.contiguous() for name, w in scores.network.state_dict().items()}
    # Not save_file: its file is for the owner's eyes alone, whatever the umask.
    path.write_bytes(save(weights, metadata={METADATA: metadata}))


def _load_safetensors(path: Path, scores: Scores) -> Callable[[Tensor], Tensor]:
    from copy import deepcopy

    from safetensors.torch import load_file

    network = deepcopy(scores.network)
    network.load_state_dict(load_file(path))
    return Scores(network, scores.data)


WAYS: dict[str, tuple[Callable[..., None], Callable[..., Callable[[Tensor], Tensor]]]] = {
    ".onnx": (_write_onnx, _load_onnx),
    ".pt2": (_write_pt2, _load_pt2),
    ".safetensors": (_write_safetensors, _load_safetensors),
}
"""What writes a format, and what makes a function of images of the file."""
