"""The RayJob and its image: fields as KubeRay has them, versions as installed, a command that runs.

The fields are those of KubeRay's types (ray-operator/apis/ray/v1) and of Kubernetes' pods.
Kubernetes drops a field that it does not know without a word, so a misspelt one is found here.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from orchestrator.experiment.load import experiment_of
from orchestrator.reproduce_paper import parser

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
Config = dict[str, Any]

FIELDS = {
    "": "apiVersion kind metadata spec",
    "spec": "activeDeadlineSeconds backoffLimit clusterSelector entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML "
    "shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished",
    "rayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling headGroupSpec "
    "headServiceAnnotations rayVersion suspend workerGroupSpecs",
    "authOptions": "mode secretName enableK8sTokenAuth",
    "autoscalerOptions": "env envFrom idleTimeoutSeconds image imagePullPolicy resources "
    "securityContext upscalingMode volumeMounts",
    "headGroupSpec": "enableIngress headService rayStartParams serviceType template",
    "workerGroupSpecs": "groupName maxReplicas minReplicas numOfHosts rayStartParams replicas "
    "scaleStrategy template",
    "template": "metadata spec",
    "template.spec": "affinity containers initContainers nodeSelector restartPolicy "
    "serviceAccountName tolerations volumes",
    "containers": "args command env envFrom image imagePullPolicy lifecycle name ports resources "
    "securityContext volumeMounts",
    "env": "name value valueFrom",
    "resources": "limits requests",
    "tolerations": "effect key operator tolerationSeconds value",
}
"""The fields of every object that the file has; a list's are those of its items."""
REQUIRED = {"headGroupSpec": "rayStartParams template", "workerGroupSpecs": "groupName template"}
FREE = ("metadata", "rayStartParams", "nodeSelector", "limits", "requests")
"""Objects whose keys are anybody's."""
START = ("num-cpus", "num-gpus", "dashboard-host", "resources", "memory", "labels")
"""Options of `ray start` that a file may give."""


def load() -> Config:
    config: Config = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())
    return config


def check_fields(found: Config, name: str = "") -> None:
    """Every key is one that the object of this name has."""
    known = FIELDS[name].split()
    assert set(REQUIRED.get(name, "").split()) <= set(found), f"{name}: a required field is missing"
    for key, value in found.items():
        assert key in known, f"{name or 'the RayJob'}: no field {key}"
        if key in FREE or not isinstance(value, dict | list):
            continue
        inside = "template.spec" if (name, key) == ("template", "spec") else key
        for item in value if isinstance(value, list) else [value]:
            check_fields(item, inside)


def groups(config: Config) -> Iterator[Config]:
    cluster = config["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]
    yield from cluster["workerGroupSpecs"]


def own_resources(group: Config) -> dict[str, float]:
    """The resources of our own that a group's machines have, as `ray start` reads them."""
    written = group["rayStartParams"].get("resources")
    if written is None:
        return {}
    (word,) = shlex.split(written)  # KubeRay puts it into a shell's command line as it is
    found: dict[str, float] = json.loads(word)
    return found


def command(config: Config) -> list[str]:
    words = shlex.split(config["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "orchestrator.reproduce_paper"]
    return words[3:]


def check(config: Config) -> None:
    assert (config["apiVersion"], config["kind"]) == ("ray.io/v1", "RayJob")
    check_fields(config)
    assert config["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    images = {c["image"] for g in groups(config) for c in g["template"]["spec"]["containers"]}
    assert len(images) == 1, "one image, so that all machines have the same code"
    options = parser().parse_intermixed_args(command(config))
    assert options.address == "auto" and options.yes and options.out.startswith("s3://")
    experiment = experiment_of(options.words)
    head, *workers = groups(config)
    assert head["rayStartParams"]["num-cpus"] == "0", "the head trains nothing"
    assert len({group["groupName"] for group in workers}) == len(workers)
    for group in groups(config):
        assert set(group["rayStartParams"]) <= set(START)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        limits, requests = (container["resources"][key] for key in ("limits", "requests"))
        assert limits == requests, "Ray hands out the limits, so all of them must be there"
    for group in workers:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    wanted = {final.resources.machines for final in experiment.finals.values()}
    marked = [group for group in workers if own_resources(group)]
    assert wanted == {name for group in marked for name in own_resources(group)} == {"on_demand"}
    assert all(search.resources.machines is None for search in experiment.searches.values())
    for group in workers:
        label = group["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"]
        assert label == ("on-demand" if group in marked else "spot")


def test_the_rayjob_is_valid_and_its_command_runs() -> None:
    check(load())


def _field(config: Config) -> None:
    config["spec"]["shutdownAfterJobFinish"] = True


def _deep_field(config: Config) -> None:
    config["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"][
        "nodeSelectors"
    ] = {}


def _ray(config: Config) -> None:
    config["spec"]["rayClusterSpec"]["rayVersion"] = "2.50.0"


def _image(config: Config) -> None:
    group = config["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    group["template"]["spec"]["containers"][0]["image"] = "YOUR-REGISTRY/gdas:0.0.9"


def _setting(config: Config) -> None:
    config["spec"]["entrypoint"] += " final.resources.machine=on_demand"


def _nowhere(config: Config) -> None:
    config["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["rayStartParams"] = {}


def _unquoted(config: Config) -> None:
    group = config["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    group["rayStartParams"] = {"resources": '{"on_demand": 1}'}


@pytest.mark.parametrize("harm", [_field, _deep_field, _ray, _image, _setting, _nowhere, _unquoted])
def test_a_fault_in_it_is_found(harm: Callable[[Config], None]) -> None:
    config = copy.deepcopy(load())
    harm(config)
    with pytest.raises((AssertionError, ValueError)):
        check(config)


def test_the_image_has_what_pyproject_asks_for_and_the_files_versions() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = re.search(r"^FROM python:(\d+\.\d+)-", text, re.M)
    assert python is not None
    assert python[1] in SpecifierSet(project["requires-python"])
    asked = {found.name: found for found in map(Requirement, project["dependencies"])}
    pinned = [Requirement(word) for word in re.findall(r"'([a-z\[\],]+[<>=]=[\d.]+)'", text)]
    assert {found.name for found in pinned} == {"ray", "torch", "torchvision"}
    for found in pinned:
        named = asked[found.name]
        assert found.extras == named.extras
        (one,) = found.specifier
        assert one.version in named.specifier, f"{found.name}: pyproject.toml asks for {named}"
        if found.name == "ray":
            assert (one.operator, one.version) == ("==", version("ray"))
    image = re.compile(r"YOUR-REGISTRY/gdas:[\d.]+")
    for name in ("Dockerfile", "README.md", "kuberay.yaml"):
        found_there = set(image.findall((CLUSTER / name).read_text()))
        assert found_there == {f"YOUR-REGISTRY/gdas:{project['version']}"}, name
    for program in ("g++", "wget", "bash"):
        assert program in text, f"{program} is needed in the container"
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    assert {"data", "runs", ".venv"} <= set(ignored)
