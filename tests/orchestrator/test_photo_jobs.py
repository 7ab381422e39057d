"""A search, a proxy training and a final on photos: from settings to results, without Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gdas.data.images import open_images
from orchestrator.cost.plan import standing
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.run.checks import check_experiment, fixed_cells, identity, prepare_data
from orchestrator.store.results import FinalResult, Provenance, ProxyResult, SearchResult
from orchestrator.store.store import Store
from orchestrator.work.final import require_provenance, settle_provenance, train_worker
from orchestrator.work.proxy import run_proxy
from orchestrator.work.search import run_search
from tests.gdas.photo_folder import DATA, convert_tiny, make_folder
from tests.narrow import present
from tests.orchestrator.contract import assert_is, assert_job_is

YAML = """
search:
  seeds: [0]
  recipe:
    data: {name: tiny, format: photos, classes: 7, size: 32, resize: 36, window: 3}
    epochs: 1
    batch_size: 8
    train_images: 16
    valid_images: 12
    network: {channels: 4, normals_per_block: 1, nodes: 2, stem: cifar}
  proxy: {epochs: 1, channels: 4, normals_per_block: 1, stem: cifar, batch_size: 8}
searches: {both: {}}
finals:
  v1:
    cell: {published: GDAS_V1}
    recipe:
      data: {name: tiny, format: photos, classes: 7, size: 32, resize: 36, window: 3}
      epochs: 1
      batch_size: 8
      channels: 4
      normals_per_block: 1
      stem: cifar
      segments_per_epoch: 2
"""

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")


def test_jobs_on_photos_run_from_settings_to_results(tmp_path: Path) -> None:
    data = tmp_path / "data"
    convert_tiny(make_folder(tmp_path / "source"), data / DATA.name)
    (tmp_path / "photos.yaml").write_text(YAML)
    experiment = load_experiment(str(tmp_path / "photos.yaml"), [])
    cells = fixed_cells(experiment)
    check_experiment(experiment, cells, data)
    genotypes = {name: cell.to_json() for name, cell in cells.items()}
    study = build_study(experiment, partial(identity, data), genotypes)
    store = Store(tmp_path / "out")
    prepare_data(study, store, data)
    folders = {job.kind: store.prepare(job, {"data": str(data)}) for job in study}
    search, proxy, final = folders["search"], folders["proxy"], folders["train"]
    run_search(str(search.path))
    assert run_proxy(str(proxy.path))["metrics"]["valid/top1"] >= 0

    settle_provenance(final, final.settings(), tmp_path)
    train_worker(str(final.path))
    result = present(final.result(FinalResult))
    assert result["best"]["epoch"] == 1, "an epoch of two segments"
    assert result["best"]["test/top5"] == result["metrics"]["test/top5"]
    assert result["train_images"] == len(open_images(DATA, "train", data)) == 35
    assert [record["position"] for record in final.records()] == [1, 2]
    for folder, kind in ((search, SearchResult), (proxy, ProxyResult), (final, FinalResult)):
        assert_job_is(folder, kind)
    assert_is(require_provenance(final), Provenance)
    job = next(job for job in study if job.kind == "train")
    (final.path / "result.json").unlink()
    assert standing(job, store) == "goes on after epoch 1"
