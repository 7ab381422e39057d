"""D_T and D_V: the halves of the training images that the weights and the logits learn from.

They work with any supernet whose forward pass is like that of gdas.cnn.supernet.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture
from gdas.compute import autocast, device_of, memory_format
from gdas.config import Precision
from gdas.data.augment import augment, draw_moves, normalise
from gdas.data.images import split_indices
from gdas.data.settings import AnyImageData
from gdas.data.source import Batch, ImageSource, Wanted, require_images
from gdas.errors import InputError
from gdas.metrics import BatchLoss, correct_top_k
from gdas.randomness import generator
from gdas.search import SearchSettings


class ImageSearchSettings(SearchSettings, Protocol):
    """The settings that the two halves of the images read, besides those of `SearchSettings`."""

    @property
    def data(self) -> AnyImageData:
        """The data set, its augmentation and its constants for normalising."""

    @property
    def train_images(self) -> int | None:
        """The size of D_T; None: half of the training images."""

    @property
    def valid_images(self) -> int | None:
        """The size of D_V; None: the images that are not in D_T."""

    @property
    def split_seed(self) -> int | None:
        """The seed of the halves; None: that of the search."""

    @property
    def precision(self) -> Precision:
        """The precision of the forward pass."""

    @property
    def channels_last(self) -> bool:
        """Whether images and weights are in channels-last memory layout."""


def search_split(config: ImageSearchSettings, images: int) -> tuple[Tensor, Tensor]:
    """The indices of D_T and D_V among the training images, for these settings' seed."""
    seed = config.seed if config.split_seed is None else config.split_seed
    return split_indices(images, seed, config.train_images, config.valid_images)


def check_halves(config: ImageSearchSettings, train: int, valid: int) -> None:
    """Raise InputError unless both halves of the training images have a whole batch.

    Args:
        train, valid: the numbers of images in D_T and in D_V.
    """
    fewest = min(train, valid)
    if config.batch_size > fewest:
        raise InputError(
            f"batch_size={config.batch_size}: larger than a half of the training images (D_T has "
            f"{train}, D_V {valid}); use batch_size={fewest} or less"
        )


class ImageHalves:
    """D_T and D_V of a training split: the images of every step, and a supernet's loss on them.

    Both halves get the training augmentation, as in the authors' code (whose search has no cutout).

    Raises:
        InputError: the split is smaller than the settings ask for.
    """

    def __init__(
        self, config: ImageSearchSettings, images: ImageSource, device: torch.device | str
    ) -> None:
        self.config = config
        require_images(images, "images")
        self.device = device = device_of(device)
        self.images = images.to(device)
        # The same images. If they are read from disk, each half is a separate stream.
        self.valid_images = self.images.to(device)
        self._orders: dict[str, tuple[int, Tensor]] = {}
        self.train_T, self.valid_V = search_split(config, len(images))
        check_halves(config, *self.sizes)
        self.layout = memory_format(config.channels_last)

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of images in D_T and in D_V."""
        return len(self.train_T), len(self.valid_V)

    @property
    def steps(self) -> int:
        """How many W steps see every image of D_T once."""
        return -(-len(self.train_T) // self.config.batch_size)

    def place(self, supernet: nn.Module) -> nn.Module:
        """Move a supernet to the images' device and memory layout."""
        return supernet.to(memory_format=self.layout).to(self.device)

    def weight_loss(
        self, weights: nn.Module, architecture: Architecture, epoch: int, step: int
    ) -> BatchLoss:
        """The loss of the step's batch of D_T; the next batch is read meanwhile."""
        then = partial(self._for_weights, epoch, step + 1) if step + 1 < self.steps else None
        wanted = self._for_weights(epoch, step)
        batch = self.images.take(wanted, then)
        return self._loss(weights, architecture, wanted, batch, self.config.precision)

    def _for_weights(self, epoch: int, step: int) -> Wanted:
        order = self._order(self.images, self.train_T, "order", epoch)
        return self._wanted(order.split(self.config.batch_size)[step], "weights", epoch, step)

    def alpha_loss(
        self, weights: nn.Module, architecture: Architecture, epoch: int, step: int
    ) -> BatchLoss:
        """The loss of the step's batch of D_V, in float32; the next batch is read meanwhile.

        In bfloat16 the logits' gradients would point elsewhere: their cosine with those of float32
        was 0.70 to 0.86 in eight alpha steps of the paper's network (16 channels, N=2, batch 32).
        """
        # While the logits are held, few steps read D_V.
        ahead = step + 1 < self.steps and not self.config.alpha.holds(epoch)
        then = partial(self._for_alpha, epoch, step + 1) if ahead else None
        wanted = self._for_alpha(epoch, step)
        batch = self.valid_images.take(wanted, then)
        return self._loss(weights, architecture, wanted, batch, "float32")

    def _for_alpha(self, epoch: int, step: int) -> Wanted:
        return self._wanted(self._alpha_rows(epoch, step), "alpha", epoch, step)

    def _order(self, images: ImageSource, rows_N: Tensor, stream: str, position: int) -> Tensor:
        """The order of a pass, computed once."""
        if stream not in self._orders or self._orders[stream][0] != position:
            order_N = images.order(rows_N, self.config.seed, stream, position)
            self._orders[stream] = position, order_N
        return self._orders[stream][1]

    def _alpha_rows(self, epoch: int, step: int) -> Tensor:
        """The step's images of D_V: shuffled passes, which may cross an epoch's end, or draws."""
        size, seed = self.config.batch_size, self.config.seed
        if self.config.alpha.images == "replacement":
            draw = generator(seed, "alpha images", epoch, step)
            return self.valid_V[torch.randint(len(self.valid_V), (size,), generator=draw)]
        passed, index = divmod(epoch * self.steps + step, -(-len(self.valid_V) // size))
        order = self._order(self.valid_images, self.valid_V, "alpha order", passed)
        rows_B: Tensor = order.split(size)[index]
        return rows_B

    def _wanted(self, rows_B: Tensor, stream: str, epoch: int, step: int) -> Wanted:
        moves = draw_moves(
            self.config.data,
            len(rows_B),
            self.images.size,
            generator(self.config.seed, f"augmentation of {stream}", epoch, step),
        )
        return Wanted(rows_B, moves)

    def _loss(
        self,
        weights: nn.Module,
        architecture: Architecture,
        wanted: Wanted,
        batch: Batch,
        precision: Precision,
    ) -> BatchLoss:
        assert wanted.moves is not None
        images_BCHW = augment(batch.pixels_BCHW, self.config.data, wanted.moves)
        images_BCHW = images_BCHW.contiguous(memory_format=self.layout)
        labels_B = batch.labels_B
        by_image = () if architecture.samples is None else (architecture.samples,)
        with autocast(self.device, precision):
            scores_BK = weights(images_BCHW, architecture.picks, architecture.gates, *by_image)
            loss = F.cross_entropy(scores_BK, labels_B)
        return BatchLoss(loss, len(labels_B), correct_top_k(scores_BK.detach(), labels_B, 1))

    def plain(self, rows_B: Tensor) -> Batch:
        """Images for scoring, normalised but not augmented, and their labels."""
        pixels_BCHW, labels_B = self.images.take(Wanted(rows_B, None))
        images_BCHW = normalise(pixels_BCHW, self.config.data)
        return Batch(images_BCHW.contiguous(memory_format=self.layout), labels_B)
