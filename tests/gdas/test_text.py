"""Text data: what is read is what was published, and every token is learnt from once an epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gdas.data.corpora import CORPORA
from gdas.data.prose import prose as prose_lines
from gdas.data.text import (
    Tokens,
    batch_tokens,
    bptt_lengths,
    known_text,
    open_tokens,
    read_tokens,
    write_tokens,
)
from gdas.data.vocabulary import Split
from gdas.errors import InputError

TEXTS: dict[Split, str] = {
    "train": " the cat sat \n the dog \n\n a <unk> ran \n",
    "valid": " the dog ran \n",
    "test": " a cat \n",
}
TRAIN_IDS = [0, 1, 2, 3, 0, 4, 3, 3, 5, 6, 7, 3]  # the cat sat <eos> the dog <eos> <eos> a ...


def sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def lay_out(folder: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[Split, str] = TEXTS) -> Path:
    """Put small files where PTB's are expected and make their checksums the published ones."""
    corpus = CORPORA["ptb"]
    (folder / "ptb").mkdir(parents=True)
    for split, content in texts.items():
        (folder / "ptb" / corpus.files[split]).write_text(content)
    sums = {split: sha(content) for split, content in texts.items()}
    monkeypatch.setitem(CORPORA, "ptb", dataclasses.replace(corpus, sha256=sums))
    return folder


def no_network(*args: object, **kwargs: object) -> Any:
    raise OSError("no network here")


def test_a_line_gives_its_words_and_one_end_and_ids_in_order_of_first_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path, monkeypatch)
    train = open_tokens("ptb", "train", folder)
    assert train.ids_N.tolist() == TRAIN_IDS
    assert train.ids_N.dtype == torch.int32
    valid = open_tokens("ptb", "valid", folder)
    assert valid.ids_N.tolist() == [0, 4, 7, 3], "the vocabulary is the training split's"
    assert train.vocabulary == valid.vocabulary == 8


def test_later_openings_read_the_converted_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path, monkeypatch)
    first = open_tokens("ptb", "train", folder)
    for file in (folder / "ptb").iterdir():
        file.unlink()
    assert torch.equal(open_tokens("ptb", "train", folder, verify=True).ids_N, first.ids_N)
    assert [p.name for p in (folder / "arrow").iterdir()] == ["ptb-train.arrow"]


def test_the_test_split_is_not_touched_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path, monkeypatch)
    (folder / "ptb" / "ptb.test.txt").unlink()
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    for split in ("train", "valid"):
        open_tokens("ptb", split, folder)
    with pytest.raises(InputError, match=r"ptb\.test\.txt"):
        open_tokens("ptb", "test", folder)


def test_a_word_unknown_to_training_is_mapped_where_there_is_unk_and_refused_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path / "a", monkeypatch, TEXTS | {"valid": "the bird\n"})
    assert open_tokens("ptb", "valid", folder).ids_N.tolist() == [0, 6, 3]
    texts: dict[Split, str] = {"train": "the cat\n", "valid": "the bird\n", "test": "a\n"}
    folder = lay_out(tmp_path / "b", monkeypatch, texts)
    with pytest.raises(InputError, match="valid split: the word 'bird'"):
        open_tokens("ptb", "valid", folder)


def test_a_wrong_checksum_names_the_file_and_the_published_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path, monkeypatch)
    (folder / "ptb" / "ptb.train.txt").write_text("the cat\n")
    with pytest.raises(InputError) as error:
        open_tokens("ptb", "train", folder)
    message = str(error.value)
    assert "\n" not in message
    for part in ("ptb.train.txt", sha(TEXTS["train"]), "data.checksum=any"):
        assert part in message


def test_missing_files_without_a_network_are_one_line_that_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(InputError) as error:
        open_tokens("wikitext2", "train", tmp_path)
    message = str(error.value)
    assert "\n" not in message
    for part in (str(tmp_path / "wikitext-2"), "wiki.train.tokens", "no network here", "--data"):
        assert part in message


class Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self) -> bytes:
        return self.content


def parquet(content: str) -> bytes:
    import pyarrow.parquet as pq

    lines = content.splitlines(keepends=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": lines}), sink)
    return bytes(sink.getvalue())


def test_a_download_is_checked_and_the_next_address_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = CORPORA["wikitext2"]
    sums = {split: sha(content) for split, content in TEXTS.items()}
    monkeypatch.setitem(CORPORA, "wikitext2", dataclasses.replace(corpus, sha256=sums))
    asked: list[str] = []

    def serve(address: str, timeout: float) -> Answer:
        assert timeout > 0
        asked.append(address)
        good = address.endswith(".parquet")
        return Answer(parquet(TEXTS["train"]) if good else b"<html>moved</html>")

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    train = open_tokens("wikitext2", "train", tmp_path)
    assert train.ids_N.tolist() == TRAIN_IDS
    assert asked == list(corpus.addresses["train"])
    assert (tmp_path / "wikitext-2" / "wiki.train.tokens").read_text() == TEXTS["train"]


def test_prose_needs_no_files_and_keeps_its_splits_apart(data_folder: Path) -> None:
    prose = known_text("prose")
    splits: tuple[Split, ...] = ("train", "valid", "test")
    for split in splits:
        tokens = open_tokens("prose", split, data_folder, verify=True)
        assert (len(tokens), tokens.vocabulary) == (prose.counts[split], prose.vocabulary)
    total = sum(prose.counts.values())
    assert 0.7 < prose.counts["train"] / total < 0.9
    assert min(prose.counts["valid"], prose.counts["test"]) > 0.05 * total
    long = {
        split: {tuple(line) for line in prose_lines(split) if len(line) > 10} for split in splits
    }
    # A sentence may be said twice; whole topics are not.
    assert len(long["train"] & (long["valid"] | long["test"])) < 0.02 * len(long["valid"])
    assert len({prose.identity(split) for split in splits}) == 3


def test_identities_of_published_texts_differ_and_need_no_file() -> None:
    splits: tuple[Split, ...] = ("train", "valid", "test")
    found = {known_text(name).identity(split) for name in CORPORA for split in splits}
    assert len(found) == 6
    with pytest.raises(InputError, match=r"data\.name=enwik8"):
        known_text("enwik8")


IDS = np.array([0, 1, 2, 1, 0, 2], np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("identity", "made from other data than these"),
        ("cut", "damaged"),
        ("flip", "damaged, its content"),
        ("range", "outside the vocabulary"),
        ("images", "of another version or another program"),
        ("rubbish", "damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    identity = "other" if change == "identity" else "right"
    write_tokens(path, IDS, vocabulary=2 if change == "range" else 3, identity=identity)
    content = path.read_bytes()
    if change == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif change == "flip":
        at = content.index(IDS.tobytes())
        path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    elif change == "images":
        path.write_bytes(content.replace(b"gdas-tokens/1", b"gdas-images/1"))
    elif change == "rubbish":
        path.write_bytes(b"tokens")
    with pytest.raises(InputError, match=message):
        read_tokens(path, identity="right", verify=True)


def test_the_first_tokens_of_a_split_and_no_more_than_there_are() -> None:
    tokens = Tokens(torch.from_numpy(IDS), 3)
    assert tokens.first(4).ids_N.tolist() == [0, 1, 2, 1]
    assert tokens.first(None) is tokens
    with pytest.raises(InputError, match="valid_tokens=7"):
        tokens.first(7, "valid_tokens")


def test_a_column_is_a_contiguous_stretch() -> None:
    text_TB = batch_tokens(torch.arange(23, dtype=torch.int32), 4)
    assert text_TB.shape == (5, 4)
    assert text_TB.dtype == torch.int64
    assert text_TB.t().flatten().tolist() == list(range(20))
    with pytest.raises(InputError, match="too few for a batch of 12"):
        batch_tokens(torch.arange(23), 12)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("targets", [1, 4, 35, 36, 1000])
def test_every_target_is_covered_exactly_once_an_epoch(targets: int, varied: bool) -> None:
    for epoch in range(5):
        lengths = bptt_lengths(targets, 35, seed=1, epoch=epoch, varied=varied)
        assert sum(lengths) == targets
        assert min(lengths) >= 1


def test_lengths_of_a_search_are_whole_or_half() -> None:
    lengths = bptt_lengths(200_000, 35, seed=1, epoch=0, varied=False)[:-1]
    assert set(lengths) == {35, 17}
    # 5,750 draws or so: the share is within 4 standard deviations but once in 16,000 times.
    assert abs(lengths.count(35) / len(lengths) - 0.95) < 4 * (0.95 * 0.05 / len(lengths)) ** 0.5


def test_lengths_of_a_training_scatter_around_the_whole_and_the_half() -> None:
    lengths = bptt_lengths(400_000, 35, seed=1, epoch=0, varied=True)[:-1]
    assert min(lengths) >= 5
    assert max(lengths) <= 55
    drawn = torch.tensor(lengths).double()
    whole = drawn[drawn > 26]
    # The fraction is cut off, which takes half a step; 11,000 draws or so of sd 5.
    assert abs(float(whole.mean()) - 34.7) < 0.4
    assert abs(float(whole.std()) - 4.8) < 0.4
    assert 0.02 < float((drawn < 22).double().mean()) < 0.07


def test_lengths_follow_seed_epoch_and_attempt() -> None:
    def draw(**where: int) -> list[int]:
        return bptt_lengths(5000, 35, varied=True, **({"seed": 1, "epoch": 2} | where))

    assert draw() == draw()
    assert draw() not in (draw(seed=2), draw(epoch=3), draw(attempt=1))


@pytest.mark.skipif("GDAS_DATA" not in os.environ, reason="GDAS_DATA names no folder of data")
@pytest.mark.parametrize("name", list(CORPORA))
def test_the_published_texts_have_the_published_sizes(name: str, tmp_path: Path) -> None:
    source = Path(os.environ["GDAS_DATA"]) / CORPORA[name].folder
    (tmp_path / CORPORA[name].folder).symlink_to(source)
    for split, count in CORPORA[name].counts.items():
        tokens = open_tokens(name, split, tmp_path, verify=True)
        assert len(tokens) == count
        assert tokens.vocabulary == CORPORA[name].vocabulary
