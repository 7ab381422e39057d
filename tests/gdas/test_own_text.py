"""People's own text, and PTB and WikiText-2 as other projects lay them out."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gdas.data.corpora import CORPORA, find_file
from gdas.data.own_text import own_text
from gdas.data.settings import TextData
from gdas.data.text import Tokens, open_tokens, text_counts, text_identity
from gdas.data.vocabulary import Split, encode, vocabulary_of
from gdas.errors import InputError
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.train import train_text
from tests.gdas.test_text import TEXTS, TRAIN_IDS, lay_out, sha
from tests.gdas.tiny import CPU
from tests.gdas.tiny_text import train_config

OWN = TextData(name="mine", format="text")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def put(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def named(form: str) -> dict[str, str | bytes]:
    return {form.format(split): content for split, content in TEXTS.items()}


@pytest.mark.parametrize("form", ["{}.txt", "wiki.{}.tokens", "ptb.{}.txt", "my_{}.text", "{}"])
def test_prepared_text_is_split_as_ptb_is(tmp_path: Path, form: str) -> None:
    put(tmp_path / "mine", named(form))
    train = open_tokens(OWN, "train", tmp_path, verify=True)
    assert train.ids_N.tolist() == TRAIN_IDS and train.vocabulary == 8
    assert open_tokens(OWN, "valid", tmp_path).ids_N.tolist() == [0, 4, 7, 3]
    identities = {split: text_identity(OWN, split, tmp_path) for split in SPLITS}
    assert text_counts(OWN, identities) == (8, {"train": 12, "valid": 4, "test": 3})
    assert len(set(identities.values())) == 3


def test_rare_words_of_unprepared_text_become_unk_in_every_split(tmp_path: Path) -> None:
    put(tmp_path / "mine", {"train.txt": "a b a\nb c\n", "val.txt": "a z\n", "test.txt": "b\n"})
    train = open_tokens(OWN, "train", tmp_path)
    assert train.ids_N.tolist() == [0, 1, 0, 2, 1, 3, 2] and train.vocabulary == 4
    assert open_tokens(OWN, "valid", tmp_path).ids_N.tolist() == [0, 3, 2]
    strict = dataclasses.replace(OWN, min_count=1)
    assert open_tokens(strict, "train", tmp_path).ids_N.tolist() == [0, 1, 0, 2, 1, 3, 2]
    assert text_identity(strict, "train", tmp_path) != text_identity(OWN, "train", tmp_path)
    with pytest.raises(InputError, match=r"val\.txt: 1 words such as 'z' .*data\.min_count"):
        text_identity(strict, "valid", tmp_path)


def test_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path) -> None:
    put(tmp_path / "mine", named("{}.txt"))
    marked = {
        name: b"\xef\xbb\xbf" + str(content).replace("\n", "\r\n").encode()
        for name, content in named("{}.txt").items()
    }
    put(tmp_path / "other" / "mine", dict(marked))
    old = {name: str(text).replace("\n", "\r") for name, text in named("{}.txt").items()}
    put(tmp_path / "old" / "mine", dict(old))
    for split in SPLITS:
        identity = text_identity(OWN, split, tmp_path)
        ids = open_tokens(OWN, split, tmp_path).ids_N
        for other in (tmp_path / "other", tmp_path / "old"):
            assert text_identity(OWN, split, other) == identity
            assert torch.equal(open_tokens(OWN, split, other).ids_N, ids)


def test_changed_text_is_converted_anew_and_is_another_job(tmp_path: Path) -> None:
    put(tmp_path / "mine", named("{}.txt"))
    first = text_identity(OWN, "valid", tmp_path)
    open_tokens(OWN, "valid", tmp_path)
    (tmp_path / "mine" / "valid.txt").write_text("the the dog\n")
    assert text_identity(OWN, "valid", tmp_path) != first
    assert open_tokens(OWN, "valid", tmp_path).ids_N.tolist() == [0, 0, 4, 3]


REFUSED: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no folder": ({}, r"mine: no such folder; put your text there: .*train\.txt, valid\.txt"),
    "no valid": ({"train.txt": "a", "test.txt": "a"}, "no file of valid"),
    "two of valid": (
        {"train.txt": "a", "val.txt": "a", "dev.txt": "a", "test.txt": "a"},
        r"dev\.txt and val\.txt may both be valid",
    ),
    "a table": ({"train.jsonl": "{}"}, r"no file of train \(it holds train\.jsonl\); it must have"),
    "empty": ({**named("{}.txt"), "train.txt": ""}, r"train\.txt: is empty"),
    "blank lines": ({**named("{}.txt"), "valid.txt": "\n \n\n"}, r"valid\.txt: is empty"),
    "marked ends of lines": (
        {**named("{}.txt"), "valid.txt": "a b\na <eos>\n"},
        r"valid\.txt: line 2 has <eos>, and one is added .*sed -i",
    ),
    "no word twice": (
        {"train.txt": "a b", "valid.txt": "a", "test.txt": "a"},
        r"train\.txt: no word is seen 2 times.* data\.min_count, such as 1",
    ),
    "UTF-16": (
        {**named("{}.txt"), "train.txt": "a b\n".encode("utf-16")},
        r"train\.txt: line 1 is not UTF-8 text \(UTF-16\); save",
    ),
    "Latin-1": (
        {**named("{}.txt"), "valid.txt": "a\nb é\n".encode("latin-1")},
        r"valid\.txt: line 2 is not UTF-8 text",
    ),
    "a picture": ({**named("{}.txt"), "train.txt": b"\x89PNG\0\0"}, "line 1 is not UTF-8"),
    "zeros": ({**named("{}.txt"), "train.txt": b"a b\n\0\0"}, "line 2 .*a zero byte"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    files, says = REFUSED[case]
    if files:
        put(tmp_path / "mine", files)
    with pytest.raises(InputError, match=says) as caught:
        text_identity(OWN, "valid", tmp_path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_bytes_are_read_as_their_lines_are_or_refused(content: bytes, text: str) -> None:
    for raw in (content, text.encode()):
        with tempfile.TemporaryDirectory() as temporary:
            folder = put(Path(temporary) / "mine", {**named("{}.txt"), "train.txt": raw})
            try:
                own = own_text(folder, 1)
                found = own.encode("train").tolist()
            except InputError as problem:
                assert "\n" not in str(problem)
                continue
        plain = raw.removeprefix(b"\xef\xbb\xbf").decode()
        plain = plain.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
        lines = [line.split() for line in plain.split("\n")]
        assert found == encode(lines, vocabulary_of(lines), "").tolist()


def test_a_language_model_learns_from_own_text(tmp_path: Path) -> None:
    texts = {f"{split}.txt": "the cat sat on the mat\n" * 60 for split in SPLITS}
    put(tmp_path / "mine", dict(texts))
    splits: list[Tokens] = [open_tokens(OWN, split, tmp_path) for split in SPLITS]
    config = dataclasses.replace(train_config(), data=OWN, epochs=2, batch_size=4)
    *_, last = train_text(config, PUBLISHED_RECURRENT["RNN_GDAS"], *splits, device=CPU)
    assert last.metrics["valid/perplexity"] < splits[0].vocabulary + 1


# PTB and WikiText-2


@pytest.mark.parametrize("form", ["penn/{}.txt", "ptb/{}.txt", "simple-examples/data/ptb.{}.txt"])
def test_published_text_is_found_as_other_projects_lay_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    lay_out(tmp_path / "usual", monkeypatch)
    for split, content in TEXTS.items():
        put((tmp_path / form.format(split)).parent, {Path(form.format(split)).name: content})
    assert open_tokens("ptb", "train", tmp_path).ids_N.tolist() == TRAIN_IDS
    # Beside a file of other content the published one counts.
    put(tmp_path / "ptb", {"ptb.train.txt": "something else\n"})
    assert find_file("ptb", "train", tmp_path) == tmp_path / form.format("train")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_published_text_with_other_line_ends_is_the_published_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    folder = lay_out(tmp_path, monkeypatch)
    usual = text_identity("ptb", "train", folder)
    for path in (folder / "ptb").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", end).encode())
    for data in (TextData(name="ptb"), TextData(name="ptb", checksum="any")):
        assert text_identity(data, "train", folder) == usual
        assert open_tokens(data, "train", folder, verify=True).ids_N.tolist() == TRAIN_IDS


def test_files_of_other_content_are_read_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, unchecked = lay_out(tmp_path, monkeypatch), TextData(name="ptb", checksum="any")
    (folder / "ptb" / "ptb.valid.txt").write_text("the dog <unk>\n")
    with pytest.raises(InputError, match=r"ptb\.valid\.txt: is not the .*data\.checksum=any"):
        open_tokens("ptb", "valid", folder)
    assert open_tokens(unchecked, "valid", folder).ids_N.tolist() == [0, 4, 6, 3]
    assert text_identity(unchecked, "train", folder) == text_identity("ptb", "train", folder)
    identities = {split: text_identity(unchecked, split, folder) for split in SPLITS}
    sizes = text_counts(unchecked, identities)
    assert sizes.counts == CORPORA["ptb"].counts | {"valid": 4} and sizes.vocabulary == 8
    # The published data are converted anew where they are wanted again.
    (folder / "ptb" / "ptb.valid.txt").write_text(TEXTS["valid"])
    assert sha(TEXTS["valid"]) == CORPORA["ptb"].sha256["valid"]
    assert open_tokens("ptb", "valid", folder).ids_N.tolist() == [0, 4, 7, 3]


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"name": "../up", "format": "text"}, "plain folder name"),
        ({"name": "ptb", "format": "text"}, "is a known text"),
        ({"name": "prose", "checksum": "any"}, "no published checksum"),
        ({"name": "ptb", "min_count": 2}, "is for your own text"),
        ({"name": "mine", "format": "text", "min_count": 0}, "min_count=0: must be 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given_settings: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TextData(**given_settings)  # type: ignore[arg-type]


@pytest.mark.skipif("GDAS_DATA" not in os.environ, reason="GDAS_DATA names no folder of data")
@pytest.mark.parametrize("name", list(CORPORA))
def test_the_published_texts_come_out_the_same_as_own_text(name: str, tmp_path: Path) -> None:
    data = Path(os.environ["GDAS_DATA"])
    (tmp_path / "mine").mkdir()
    for split in SPLITS:
        (tmp_path / "mine" / f"{split}.txt").symlink_to(find_file(name, split, data))
    (tmp_path / CORPORA[name].folder).symlink_to(data / CORPORA[name].folder)
    for split in SPLITS:
        own, known = open_tokens(OWN, split, tmp_path), open_tokens(name, split, tmp_path)
        assert torch.equal(own.ids_N, known.ids_N) and own.vocabulary == known.vocabulary
