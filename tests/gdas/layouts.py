"""Small photos in every layout that people have them in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.gdas.photo_folder import encode

CLASSES = ("n01440764", "n02084071", "n03444034")
TRAIN, VAL = 4, 2


def picture(label: int, number: int) -> bytes:
    """A small photo; no two are alike."""
    pixels = np.add.outer(np.arange(9) * 9, np.arange(9)).astype(np.uint8)[..., None]
    return encode(pixels.repeat(3, -1) + np.uint8(20 * label + number), "PNG")


def photos_of(split: str) -> dict[str, bytes]:
    """CLASS/FILE to the photo."""
    count, first = (TRAIN, 0) if split == "train" else (VAL, 10)
    return {
        f"{name}/{name}_{i}.JPEG" if split == "train" else f"{name}/val_{label}{i}.JPEG": picture(
            label, first + i
        )
        for label, name in enumerate(CLASSES)
        for i in range(count)
    }


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def flat_val(folder: Path) -> dict[str, str]:
    """Photos of val without folders; returns file to class."""
    labels = {}
    for name, content in photos_of("val").items():
        put(folder / Path(name).name, content)
        labels[Path(name).name] = name.split("/")[0]
    return labels


def folders(root: Path, val: str = "val") -> None:
    for split, name in (("train", "train"), ("val", val)):
        for photo, content in photos_of(split).items():
            put(root / name / photo, content)


def kaggle(root: Path) -> None:
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    for photo, content in photos_of("train").items():
        put(base / "train" / photo, content)
    labels = flat_val(base / "val")
    put(base / "test" / "test_1.JPEG", picture(0, 99))
    rows = [f"{Path(file).stem},{name} 1 2 3 4 {name} 5 6 7 8 " for file, name in labels.items()]
    put(root / "LOC_val_solution.csv", "ImageId,PredictionString\r\n" + "\r\n".join(rows) + "\r\n")


def annotated(root: Path) -> None:
    """As tiny-imagenet: images/ inside every class, a flat val/images, an annotations file."""
    for photo, content in photos_of("train").items():
        name, file = photo.split("/")
        put(root / "train" / name / "images" / file, content)
        put(root / "train" / name / f"{name}_boxes.txt", "0 1 2 3")
    labels = flat_val(root / "val" / "images")
    put(
        root / "val" / "val_annotations.txt",
        "".join(f"{file}\t{name}\t0\t32\t44\t62\n" for file, name in labels.items()),
    )
    put(root / "test" / "images" / "test_0.JPEG", picture(0, 99))
    put(root / "wnids.txt", "\n".join(CLASSES))


def labels_csv(root: Path) -> None:
    for photo, content in photos_of("train").items():
        put(root / "train" / photo, content)
    labels = flat_val(root / "val")
    put(root / "val" / "labels.csv", "".join(f"{f};{n}\n" for f, n in labels.items()))


def imagenet_tars(root: Path) -> None:
    inner: dict[str, dict[str, bytes]] = {}
    for photo, content in photos_of("train").items():
        name, file = photo.split("/")
        inner.setdefault(f"{name}.tar", {})[file] = content
    put(
        root / "ILSVRC2012_img_train.tar",
        tar_of({name: tar_of(files) for name, files in inner.items()}),
    )
    val = {Path(name).name: content for name, content in photos_of("val").items()}
    put(root / "ILSVRC2012_img_val.tar", tar_of(val))


def devkit(root: Path, order: tuple[int, ...] = (3, 3, 1, 1, 2, 2)) -> bytes:
    """The development kit with classes numbered otherwise than sorted, and a class above them."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(1, CLASSES[1], "dog", 0), (2, CLASSES[2], "ball", 0), (3, CLASSES[0], "tench", 0)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (4, "n00001740", "entity", 3)], kinds)})
    numbers = "".join(f"{number}\n" for number in order).encode()
    base = "ILSVRC2012_devkit_t12/data"
    kit = tar_of(
        {
            f"{base}/meta.mat": meta.getvalue(),
            f"{base}/ILSVRC2012_validation_ground_truth.txt": numbers,
        }
    )
    put(root / "ILSVRC2012_devkit_t12.tar.gz", kit)
    return kit


def tars_and_devkit(root: Path) -> None:
    imagenet_tars(root)
    devkit(root)


def tars_and_csv(root: Path) -> None:
    imagenet_tars(root)
    rows = [f"{Path(n).stem},{n.split('/')[0]} 1 2 3 4" for n in photos_of("val")]
    put(root / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows]))


def web_dataset(root: Path, number: bool = False) -> None:
    for split, name in (("train", "imagenet1k-train"), ("val", "imagenet1k-validation")):
        listed = list(photos_of(split).items())
        for shard in range(2):
            files = {}
            for photo, content in listed[shard::2]:
                label, file = photo.split("/")
                key = f"{label}_{Path(file).stem}"
                files[f"{key}.jpg"] = content
                files[f"{key}.cls"] = (str(CLASSES.index(label)) if number else label).encode()
                files[f"{key}.json"] = b"{}"
            put(root / f"{name}-{shard:04d}.tar", tar_of(files))


def table(split: str, part: slice, names: bool = True) -> pa.Table:
    listed = list(photos_of(split).items())[part]
    columns = {
        "image": pa.array(
            [{"bytes": content, "path": Path(name).name} for name, content in listed],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array([CLASSES.index(name.split("/")[0]) for name, _ in listed], pa.int64()),
    }
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    return pa.table(columns).replace_schema_metadata(about)


def parquet(root: Path, names: bool = True) -> None:
    (root / "data").mkdir()
    for i in range(2):
        path = root / "data" / f"train-{i:05d}-of-00002.parquet"
        pq.write_table(table("train", slice(i, None, 2), names), path, row_group_size=2)
    pq.write_table(
        table("val", slice(None), names), root / "data" / "validation-00000-of-00001.parquet"
    )


def arrow(root: Path) -> None:
    for split, name in (("train", "train"), ("val", "test")):
        (root / name).mkdir()
        whole = table(split, slice(None))
        path = str(root / name / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole, max_chunksize=3)
        put(root / name / "state.json", "{}")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "ImageFolder": (folders, "an ImageFolder (train/, val/)"),
    "valid": (lambda root: folders(root, "valid"), "(train/, valid/)"),
    "test": (lambda root: folders(root, "test"), "(train/, test/)"),
    "Kaggle": (kaggle, "Kaggle's ImageNet (train/, val/ flat, labels in LOC_val_solution.csv)"),
    "annotations": (annotated, "labels in val_annotations.txt"),
    "labels.csv": (labels_csv, "labels in labels.csv"),
    "ImageNet's tars": (tars_and_devkit, "labels in ILSVRC2012_devkit_t12)"),
    "ImageNet's tars, Kaggle's labels": (tars_and_csv, "labels in LOC_val_solution.csv)"),
    "WebDataset": (web_dataset, "WebDataset, 4 tars (train, validation)"),
    "WebDataset of numbers": (lambda root: web_dataset(root, number=True), "WebDataset"),
    "Parquet": (parquet, "Parquet, 3 files (train, validation; columns image, label)"),
    "Parquet without names": (lambda root: parquet(root, names=False), "Parquet"),
    "Arrow": (arrow, "Arrow, 2 files (train, test; columns image, label)"),
}


def source(tmp_path: Path, case: str) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    LAYOUTS[case][0](root)
    return root
