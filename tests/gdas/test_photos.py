"""Photos read as a stream in their order, and training and search on them."""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from gdas.checkpoint import digest
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.cnn.train import train_image
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.augment import draw_moves
from gdas.data.digit_photos import make_digit_photos
from gdas.data.digits import digits
from gdas.data.images import open_images
from gdas.data.photos import Photos
from gdas.data.settings import PHOTO_DATA
from gdas.data.source import Wanted
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.search import search
from tests.gdas.photo_folder import (
    CONFIG,
    DATA,
    photo_training,
)
from tests.gdas.team import run_team
from tests.gdas.tiny import CPU, latest, search_config, seen, train_config, until
from tests.gdas.worker import no_batch_norm

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")


# Order and reading


def test_an_order_is_a_permutation_that_depends_on_its_arguments_alone(
    photos: Photos, folder: Path
) -> None:
    rows = torch.arange(0, 35, 2)
    order = photos.order(rows, 3, "order", 5)
    assert sorted(order.tolist()) == rows.tolist()
    again = open_images(DATA, "train", folder)
    again.take(Wanted(torch.tensor([1]), None))
    assert torch.equal(again.order(rows, 3, "order", 5), order)
    others = [(4, "order", 5), (3, "other", 5), (3, "order", 6)]
    assert len({tuple(photos.order(rows, *o).tolist()) for o in [(3, "order", 5), *others]}) == 4


def test_an_order_goes_through_the_row_groups_window_by_window(photos: Photos) -> None:
    # 35 photos: shards of 10, 10, 10, 5 in row groups of 4, 4, 2 (4, 1).
    ends = [4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 35]
    group_of = [next(g for g, end in enumerate(ends) if row < end) for row in range(35)]
    firsts = set()
    for epoch in range(20):
        order = photos.order(torch.arange(35), 0, "order", epoch).tolist()
        groups = [group_of[row] for row in order]
        visited = list(dict.fromkeys(groups))
        for start in range(0, 11, 3):
            window = set(visited[start : start + 3])
            places = [i for i, g in enumerate(groups) if g in window]
            assert places == list(range(places[0], places[0] + len(places))), "one stretch"
        firsts.add(visited[0])
        mixed = sum(a != b for a, b in pairwise(groups))
        assert mixed > 11, "shuffled within a window"
    assert len(firsts) > 5


def test_an_epoch_reads_every_row_group_once_and_holds_a_window(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, int]] = []
    held: list[int] = []

    class Counting(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **options)
            self.name = Path(path).name

        def read_row_group(self, group: int, **options: Any) -> Any:
            reads.append((self.name, group))
            held.append(len(photos._groups))
            return super().read_row_group(group, **options)

    monkeypatch.setattr(pq, "ParquetFile", Counting)
    for rows_B in photos.order(torch.arange(35), 0, "order", 0).split(8):
        photos.take(Wanted(rows_B, None))
    assert len(reads) == len(set(reads)) == 11
    assert max(held) <= DATA.window and len(photos._groups) == DATA.window


def test_what_was_announced_is_what_is_read(photos: Photos) -> None:
    """Whether a batch was read ahead, in another order or not, makes no difference."""
    rows = [torch.arange(0, 6), torch.arange(6, 12), torch.arange(12, 18)]
    wanted = [
        Wanted(r, draw_moves(DATA, 6, 32, generator(0, "augmentation", i)))
        for i, r in enumerate(rows)
    ]
    plain = [photos.take(w) for w in wanted]
    ahead = [
        photos.take(w, partial(wanted.__getitem__, n))
        for w, n in zip(wanted, (1, 0, 1), strict=True)
    ]
    for first, second in zip(plain, ahead, strict=True):
        assert torch.equal(first.pixels_BCHW, second.pixels_BCHW)
        assert torch.equal(first.labels_B, second.labels_B)
    moved = Wanted(rows[1], wanted[0].moves)  # the announced rows, but moved otherwise
    assert not torch.equal(photos.take(moved).pixels_BCHW, plain[1].pixels_BCHW)


def test_pixels_do_not_depend_on_the_number_of_threads(photos: Photos) -> None:
    shards = photos._shards
    wanted = Wanted(torch.arange(20), draw_moves(DATA, 20, 32, generator(0, "augmentation", 0)))
    many = Photos(shards, photos.classes, DATA, CPU, threads=4).take(wanted)
    assert torch.equal(many.pixels_BCHW, photos.take(wanted).pixels_BCHW)
    assert torch.get_num_threads() == 1


# Training and search


def test_a_training_stopped_within_an_epoch_goes_on_as_if_it_had_not_been(
    folder: Path, tmp_path: Path
) -> None:
    whole = [seen(segment) for segment in photo_training(folder)]
    assert [epoch[0] for epoch in whole] == [1, 2, 3, 4]
    passed = until(photo_training(folder), 1, tmp_path)
    for position in (1, 2, 3):
        state = latest(tmp_path).state
        passed += until(photo_training(folder, checkpoint=state), position + 1, tmp_path)
    assert passed == whole
    metrics = [epoch[1] for epoch in whole]
    assert ["test/top5" in m for m in metrics] == [False, True, False, True]
    assert all(m["test/top5"] >= m["test/top1"] for m in metrics[1::2])
    assert [m["drop_path"] for m in metrics] == [0.0, 0.0, 0.25, 0.25]
    assert metrics[0]["lr"] == metrics[1]["lr"] > metrics[2]["lr"] == metrics[3]["lr"]


def test_the_number_of_segments_changes_no_weight(folder: Path, digits: Images) -> None:
    ends = []
    for segments in (1, 4):
        config = dataclasses.replace(CONFIG, segments_per_epoch=segments)
        *_, last = photo_training(folder, config)
        assert last.position == last.of == 2 * segments
        assert last.state is not None
        ends.append(digest([last.state["weights"], last.state["optimizer"]]))
    assert len(set(ends)) == 1
    rows = torch.arange(60)
    finals = set()
    for segments in (1, 3):
        config = train_config(epochs=2, batch_size=20, segments_per_epoch=segments)
        *_, last = train_image(
            config,
            PUBLISHED["GDAS_F1"],
            digits,
            rows,
            digits,
            rows,
            evaluated_on="valid",
            device=CPU,
        )
        assert last.state is not None
        finals.add(digest([last.state["weights"], last.metrics["valid/loss"]]))
    assert len(finals) == 1


def test_more_segments_than_batches_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="segments_per_epoch=5: an epoch has only 4 batches"):
        next(photo_training(folder, dataclasses.replace(CONFIG, segments_per_epoch=5)))


def test_a_search_on_photos_resumes_exactly_and_is_scored(folder: Path, tmp_path: Path) -> None:
    config = search_config(
        nodes=2,
        data=DATA,
        batch_size=8,
        epochs=2,
        train_images=16,
        valid_images=12,
        alpha=AlphaUpdate(lr=0.05),
        recalibration_batches=1,
    )

    def run(checkpoint: Any = None) -> Any:
        space = ImageSpace(config, open_images(DATA, "train", folder), CPU)
        return search(config, space, checkpoint=checkpoint)

    whole = [seen(segment) for segment in run()]
    passed = until(run(), 1, tmp_path)
    passed += until(run(latest(tmp_path).state), 2, tmp_path)
    assert passed == whole
    state = latest(tmp_path).state
    scores = [
        score_with_shared_weights(config, open_images(DATA, "train", folder), state, CPU)
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert 0 <= scores[0].top1 <= 100


@pytest.mark.slow
def test_two_workers_interrupted_within_an_epoch_end_as_two_uninterrupted_ones(
    folder: Path, tmp_path: Path
) -> None:
    found, _ = run_team("tests.gdas.photo_worker", folder, tmp_path, "interrupted")
    for worker in found:
        assert worker["interrupted"] == worker["whole"]
        assert [segment[0] for segment in worker["whole"]] == [1, 2, 3, 4]
    assert [s[1] for s in found[0]["whole"]] == [s[1] for s in found[1]["whole"]]


def test_without_batch_norm_two_workers_train_on_photos_what_one_does(
    folder: Path, tmp_path: Path
) -> None:
    found, state = run_team("tests.gdas.photo_worker", folder, tmp_path)
    with no_batch_norm():
        *_, alone = photo_training(folder)
    assert alone.state is not None
    for worker in found:
        assert worker["without norm"] == pytest.approx(alone.metrics, rel=1e-4)
    for name, weight in alone.state["weights"].items():
        torch.testing.assert_close(state["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_photos_without_a_download_are_made_once_and_are_the_digits(tmp_path: Path) -> None:
    make_digit_photos(tmp_path)
    index = tmp_path / "digit-photos" / "index.json"
    made, when = index.read_text(), index.stat().st_mtime_ns
    make_digit_photos(tmp_path)
    assert index.stat().st_mtime_ns == when
    make_digit_photos(tmp_path / "again")
    assert (tmp_path / "again" / "digit-photos" / "index.json").read_text() == made
    data = PHOTO_DATA["digit-photos"]
    photos = open_images(data, "train", tmp_path)
    images_NCHW, labels_N = digits("train")
    assert (len(photos), photos.classes, photos.size) == (len(labels_N), 10, 32)
    assert len(open_images(data, "test", tmp_path)) == 360
    batch = photos.take(Wanted(torch.arange(50), None))
    first = labels_N == int(batch.labels_B[0])  # by class: the folder's order
    shown = batch.pixels_BCHW[0].float()
    near = [(torch.from_numpy(i).float() - shown).abs().mean() for i in images_NCHW[first]]
    assert min(near) < 25, "the same digit, through JPEG and two changes of size"
