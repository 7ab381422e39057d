"""Photos read from shards, one row group at a time, decoded and augmented in threads.

Source: the authors' ImageNet code (section 4.2) for the augmentation. A training reads a stream:
the row groups in random order, with a window of them shuffled together, so that only a window is in
memory and every row group is read once per epoch. If there are several workers, each reads all row
groups and decodes its share.

A photo's random numbers are uniform and drawn before its size is known; `augment_photo` explains
the use of each.

Shapes: B batch, N photos, C channels, H and W height and width, U uniform numbers, G row groups.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gdas.data.augment import CROP_ATTEMPTS, PhotoMoves
from gdas.data.decode import decode
from gdas.data.settings import PhotoData
from gdas.data.shard_index import Shards, conversion_command, mend, open_index
from gdas.data.source import Batch, Split, Wanted
from gdas.errors import InputError, one_line
from gdas.randomness import generator

# Augmentation of one photo


class Box(NamedTuple):
    """A part of a photo, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_box(height: int, width: int, data: PhotoData, uniform: Sequence[float]) -> Box:
    """A part of random area and shape, as in torchvision's RandomResizedCrop.

    The first attempt that lies within the photo counts; if none does, it is the largest centred
    part of an allowed shape.

    Args:
        uniform: area and ratio for every attempt, then the row and column of the place.
    """
    (low, high), logs = data.crop_scale, [math.log(ratio) for ratio in data.crop_ratio]
    down, right = uniform[2 * CROP_ATTEMPTS : 2 * CROP_ATTEMPTS + 2]
    for attempt in range(CROP_ATTEMPTS):
        area = height * width * (low + (high - low) * uniform[2 * attempt])
        ratio = math.exp(logs[0] + (logs[1] - logs[0]) * uniform[2 * attempt + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
    w, h = width, height
    if width / height < data.crop_ratio[0]:
        h = min(height, round(width / data.crop_ratio[0]))
    elif width / height > data.crop_ratio[1]:
        w = min(width, round(height * data.crop_ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def augment_photo(pixels_CHW: Tensor, data: PhotoData, uniform: Sequence[float]) -> Tensor:
    """Crop, resize, flip and colour one photo; uint8 in and out.

    Args:
        uniform: numbers in [0, 1), in the order of gdas.data.augment.PHOTO_NUMBERS.
    """
    box = crop_box(pixels_CHW.shape[-2], pixels_CHW.shape[-1], data, uniform)
    flip, *colours = uniform[2 * CROP_ATTEMPTS + 2 :]
    pixels_CHW = F.resized_crop(pixels_CHW, *box, [data.size, data.size], antialias=True)
    if data.flip and flip < 0.5:
        pixels_CHW = F.horizontal_flip(pixels_CHW)
    operations: list[tuple[Callable[[Tensor, float], Tensor], float, float]] = [
        (F.adjust_brightness, data.brightness, 1.0),
        (F.adjust_contrast, data.contrast, 1.0),
        (F.adjust_saturation, data.saturation, 1.0),
        (F.adjust_hue, data.hue, 0.0),
    ]
    strengths, places = colours[:4], colours[4:]
    for i in sorted(range(4), key=places.__getitem__):
        adjust, most, centre = operations[i]
        if most > 0:
            low, high = centre - most, centre + most
            low = max(low, 0.0) if centre else low
            pixels_CHW = adjust(pixels_CHW, low + (high - low) * strengths[i])
    return pixels_CHW


def plain_photo(pixels_CHW: Tensor, data: PhotoData) -> Tensor:
    """The part of a photo that is scored: its centre, after resizing to `resize`."""
    resized_CHW = F.resize(pixels_CHW, [data.resize], antialias=True)
    centre_CHW: Tensor = F.center_crop(resized_CHW, [data.size, data.size])
    return centre_CHW


def _picture(encoded: bytes, data: PhotoData, uniform: Sequence[float] | None) -> Tensor:
    pixels_CHW = decode(encoded)
    if uniform is None:
        cut_CHW = plain_photo(pixels_CHW, data)
    else:
        cut_CHW = augment_photo(pixels_CHW, data, uniform)
    if cut_CHW.shape != (3, data.size, data.size):
        raise ValueError(f"{tuple(pixels_CHW.shape)} became {tuple(cut_CHW.shape)}")
    return cut_CHW


# Reading


class Group(NamedTuple):
    """A row group in memory."""

    images: pa.BinaryArray
    labels: list[int]


class Photos:
    """A split of photos on disk; implements gdas.data.source.ImageSource.

    Args:
        shards: the split.
        classes: the number of classes.
        data: the augmentation; its window is how many row groups stay in memory.
        device: the device of the batches.
        threads: how many threads decode; the pixels do not depend on it.
    """

    def __init__(
        self, shards: Shards, classes: int, data: PhotoData, device: torch.device, *, threads: int
    ) -> None:
        self.classes = classes
        self.size = data.size
        self._shards, self._data, self._device = shards, data, device
        self._threads = threads
        self._places: list[tuple[int, int]] = []  # of every row group: its shard, its number there
        starts = [0]
        for number, shard in enumerate(shards.shards):
            for group in range(-(-shard.photos // shards.group_rows)):
                self._places.append((number, group))
                left = shard.photos - group * shards.group_rows
                starts.append(starts[-1] + min(left, shards.group_rows))
        self._starts_G = torch.tensor(starts)
        self._groups: OrderedDict[int, Group] = OrderedDict()  # the last row groups that were read
        self._reader = ThreadPoolExecutor(1, "photos")
        torch.get_num_threads()  # fixes this thread's number before the decoders set theirs
        self._decoders = ThreadPoolExecutor(threads, "decode", _compute_alone)
        self._ahead: tuple[Wanted, Future[Batch]] | None = None

    def __len__(self) -> int:
        return self._shards.photos

    def to(self, device: torch.device) -> Photos:
        """The same photos with batches on `device`, and with separate threads and buffers."""
        return Photos(self._shards, self.classes, self._data, device, threads=self._threads)

    def order(self, rows_N: Tensor, seed: int, stream: str, *position: int) -> Tensor:
        """Random order, one window of row groups after the other; shuffled within a window."""
        draw = generator(seed, stream, *position)
        rank_G = torch.empty(len(self._places), dtype=torch.long)
        rank_G[torch.randperm(len(self._places), generator=draw)] = torch.arange(len(self._places))
        # Only row groups that are needed count towards a window.
        group_N = self._group_of(rows_N)
        used = torch.unique(rank_G[group_N])
        window_N = torch.searchsorted(used, rank_G[group_N]) // self._data.window
        shuffle_N = torch.randperm(len(rows_N), generator=draw)
        return rows_N[shuffle_N[torch.sort(window_N[shuffle_N], stable=True).indices]]

    def reading_order(self, rows_N: Tensor) -> Tensor:
        """The rows as they are on disk."""
        return rows_N.sort().values

    def take(self, wanted: Wanted, then: Callable[[], Wanted] | None = None) -> Batch:
        """Read, decode and augment photos; the next ones are read in the background."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and _same(ahead[0], wanted):
            batch = ahead[1]
        else:
            batch = self._reader.submit(self._read, wanted)
        if then is not None:
            following = then()
            self._ahead = following, self._reader.submit(self._read, following)
        pixels_BCHW, labels_B = batch.result()
        return Batch(
            pixels_BCHW.to(self._device, non_blocking=True),
            labels_B.to(self._device, non_blocking=True),
        )

    def _group_of(self, rows_N: Tensor) -> Tensor:
        return torch.searchsorted(self._starts_G, rows_N, right=True) - 1

    def _read(self, wanted: Wanted) -> Batch:
        """Read, decode and augment on the CPU; called only by the one reader thread."""
        encoded, labels = [], []
        groups = self._group_of(wanted.rows_B)
        for row, group in zip(wanted.rows_B.tolist(), groups.tolist(), strict=True):
            images, labels_of_group = self._group(group)
            place = row - int(self._starts_G[group])
            encoded.append(images[place].as_py())
            labels.append(labels_of_group[place])
        uniform: Sequence[Sequence[float]] | repeat[None] = repeat(None)
        if wanted.moves is not None:
            assert isinstance(wanted.moves, PhotoMoves)
            uniform = wanted.moves.uniform_BU.tolist()
        pictures = self._decoders.map(
            lambda photo, numbers: _picture(photo, self._data, numbers), encoded, uniform
        )
        stacked = list[Tensor]()
        try:
            for picture_CHW in pictures:
                stacked.append(picture_CHW)
        except (ValueError, RuntimeError) as error:  # torchvision raises RuntimeError
            photo = self._name_of(int(wanted.rows_B[len(stacked)]))
            raise InputError(
                f"{photo}: the photo cannot be read ({one_line(error, 200)}); mend it where it "
                f"came from, remove {self._folder} and convert again: "
                f"{conversion_command(self._folder)}"
            ) from None
        return Batch(torch.stack(stacked), torch.tensor(labels))

    @property
    def _folder(self) -> Path:
        return self._shards.shards[0].path.parent.parent

    def _name_of(self, row: int) -> str:
        """Where a photo is, and its name before the conversion."""
        group = int(self._group_of(torch.tensor([row])))
        number, place = self._places[group]
        path = self._shards.shards[number].path
        with pq.ParquetFile(path, memory_map=True) as file:
            names = file.read_row_group(place, columns=["name"])["name"]
        return f"{path}: {names[row - int(self._starts_G[group])].as_py()}"

    def _group(self, group: int) -> Group:
        """A row group, from memory if it is among the last `window` ones."""
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        number, place = self._places[group]
        shard = self._shards.shards[number]
        try:
            with pq.ParquetFile(
                shard.path, memory_map=True, page_checksum_verification=True
            ) as file:
                table = file.read_row_group(place, columns=["image", "label"])
            rows = int(self._starts_G[group + 1] - self._starts_G[group])
            labels = table["label"].to_numpy().astype(np.int64)
            if len(table) != rows or labels.min() < 0 or labels.max() >= self.classes:
                raise ValueError(f"row group {place} does not hold {rows} photos and their labels")
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            text = one_line(error)
            raise InputError(
                f"{shard.path}: damaged ({text}); {mend(shard.path.parent.parent)}"
            ) from None
        while len(self._groups) >= self._data.window:
            self._groups.popitem(last=False)
        self._groups[group] = Group(table["image"].combine_chunks(), labels.tolist())
        return self._groups[group]


def _compute_alone() -> None:
    """Make a decoder compute in its own thread only; the setting belongs to this thread.

    Many decoders that divide their small work among threads are slower, and sums would depend on
    the number of threads.
    """
    torch.set_num_threads(1)


def _same(first: Wanted, second: Wanted) -> bool:
    if not torch.equal(first.rows_B, second.rows_B):
        return False
    if first.moves is None or second.moves is None:
        return first.moves is second.moves
    return torch.equal(first.moves[0], second.moves[0])


def open_photos(data: PhotoData, split: Split, folder: Path, *, verify: bool) -> Photos:
    """Open a split of DATA/NAME; as many threads decode as PyTorch computes with.

    Raises:
        InputError: it is not converted yet, the number of classes differs from the settings, or a
            shard is missing or damaged.
    """
    index = open_index(data, folder)
    threads = torch.get_num_threads()
    index.check(split, verify=verify, threads=threads)
    return Photos(
        index.splits[split], len(index.classes), data, torch.device("cpu"), threads=threads
    )
