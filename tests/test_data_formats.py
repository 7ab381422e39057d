"""experiments/formats.md: its images and texts are read, by the real command."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import train_image
from gdas.data.images import open_images
from gdas.data.layouts import EXTENSIONS
from gdas.data.settings import PhotoData
from gdas.data.shards import main as convert
from gdas.data.source import Split
from orchestrator import reproduce_paper
from tests.gdas.layouts import tar_of
from tests.gdas.photo_folder import encode, scene
from tests.gdas.tiny import CPU, train_config
from tests.test_formats import section

IMAGES, TEXT = section("Images"), section("Text")
LABELS, KAGGLE = re.findall(r"^```csv\n(.*?)^```", IMAGES, re.M | re.S)
ROWS = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", IMAGES, re.M))
SPLITS: tuple[Split, ...] = ("train", "test")
ANNOTATIONS = "3.jpg\tcat\t0\t0\t9\t9\n4.jpg\tdog\t0\t0\t9\t9\n"


def photo(number: int) -> bytes:
    return encode(scene(number))


def content_of(name: str) -> bytes | pa.Table:
    """What a file that the page names holds."""
    file = Path(name).name
    if name == "train/labels.csv":
        return b"1.jpg,cat\n2.jpg,dog\n"
    match file:
        case "labels.csv":
            return LABELS.encode()
        case "LOC_val_solution.csv":
            return KAGGLE.encode()
        case "val_annotations.txt":
            return ANNOTATIONS.encode()
        case "ILSVRC2012_img_train.tar":
            return tar_of(
                {"cat.tar": tar_of({"1.jpg": photo(1)}), "dog.tar": tar_of({"2.jpg": photo(2)})}
            )
        case "ILSVRC2012_img_val.tar":
            return tar_of({"3.jpg": photo(3), "4.jpg": photo(4)})
        case "train-0000.tar" | "val-0000.tar":
            return tar_of({"1.jpg": photo(1), "1.cls": b"0", "2.jpg": photo(2), "2.cls": b"1"})
    if file.endswith((".parquet", ".arrow")):
        photos = [{"bytes": photo(i), "path": "../x.jpg"} for i in (1, 2)]
        return pa.table({"image": photos, "label": [0, 1]})
    return photo(int(Path(name).stem))


def lay_out(root: Path, row: str) -> None:
    """Make the files that a row of the page's table names."""
    for name in re.findall(r"`([^`]+)`", row):
        if name in ("cat.tar", "dog.tar", "ILSVRC2012_devkit_t12.tar.gz"):
            continue  # inside another, or one of two
        if re.fullmatch(r"\d\.(jpg|cls)", name):
            continue  # inside a tar
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content_of(name)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".parquet":
            pq.write_table(content, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as out:
                out.write_table(content)


LAYOUTS = [name for name in ROWS if name not in ("layout", "---")]
EXPERIMENT = """
finals:
  own:
    cell: {{published: GDAS_F1}}
    recipe: {{data: {data}, epochs: 1, {settings}}}
"""


def experiment(path: Path, data: dict[str, object], settings: str) -> str:
    path.write_text(EXPERIMENT.format(data=data, settings=settings))
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_page_is_converted_and_planned(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(Path("SOURCE"), ROWS[layout])
    (command,) = re.findall(r"^python -m gdas.data.shards (.*)$", IMAGES, re.M)
    assert convert(command.split()) == 0
    assert "2 classes; 2 in train (0 damaged left out), 2 in val" in capsys.readouterr().err
    (data,) = re.findall(r"^data: (\{name: NAME.*)$", IMAGES, re.M)
    read = yaml.safe_load(data) | {"size": 32, "resize": 36}
    settings = "channels: 4, normals_per_block: 1, batch_size: 2, stem: cifar, auxiliary_weight: 0"
    own = experiment(Path("own.yaml"), read, settings)
    assert reproduce_paper.main([own, "--data", "DATA", "--out", "OUT", "--dry-run"]) == 0
    assert "train-own" in capsys.readouterr().out
    photos = PhotoData(name="NAME", classes=2, size=32, resize=36)
    config = train_config(data=photos, epochs=1, batch_size=2, auxiliary_weight=0.0)
    train, test = (open_images(photos, split, Path("DATA")) for split in SPLITS)
    rows = torch.arange(2)
    (segment,) = train_image(
        config, PUBLISHED["GDAS_F1"], train, rows, test, rows, evaluated_on="test", device=CPU
    )
    assert 0 <= segment.metrics["test/top1"] <= 100


def test_the_text_of_the_page_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files, words = re.findall(r"^```text\n(.*?)^```", TEXT, re.M | re.S)
    for file in files.split():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(words * 40)
    (data,) = re.findall(r"^data: (\{name: mine.*)$", TEXT, re.M)
    settings = "hidden: 8, batch_size: 4"
    own = experiment(Path("own.yaml"), yaml.safe_load(data), settings)
    Path(own).write_text(Path(own).read_text().replace("GDAS_F1", "RNN_GDAS"))
    arguments = [own, "--data", "DATA", "--out", "OUT", "--dry-run"]
    assert reproduce_paper.main(arguments) == 0
    assert "train-own" in capsys.readouterr().out
    Path("DATA").rename("OTHER")
    Path("OTHER/mine/valid.txt").write_bytes(b"\xff\xfe\0")
    assert reproduce_paper.main([own, "--data", "OTHER", "--out", "OUT2", "--dry-run"]) == 2
    assert "valid.txt: line 1 is not UTF-8 text" in capsys.readouterr().err


def python_that_has(word: str) -> str:
    found: list[str] = re.findall(r"^```python\n(.*?)^```", IMAGES, re.M | re.S)
    return next(code for code in found if word in code)


def test_the_arrays_of_the_page_are_taken() -> None:
    code = python_that_has("Images")
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["pixels"], torch.Tensor) and len(names["images"]) == 10  # type: ignore[arg-type]


def test_the_table_of_the_page_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = python_that_has("pyarrow")
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for i in (1, 2):
        Path(f"{i}.jpg").write_bytes(photo(i))
    exec(code, {})
    Path("data/train-00000-of-00001.parquet").rename("train.parquet")
    Path("validation.parquet").write_bytes(Path("train.parquet").read_bytes())
    assert convert([".", "../" + tmp_path.name + "/DATA/NAME"]) == 0


def test_the_page_names_every_ending_and_split() -> None:
    listed = re.search(r"endings `([^`]+)`", IMAGES)
    assert listed and set(listed[1].split()) == set(EXTENSIONS)
