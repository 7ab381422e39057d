"""Every cluster file: Ray's own schema, and what that does not look at."""

from __future__ import annotations

import copy
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
FILES = [path for path in sorted(CLUSTER.glob("*.yaml")) if path.name != "kuberay.yaml"]
Config = dict[str, Any]


def load(path: Path) -> Config:
    config: Config = yaml.safe_load(path.read_text())
    return config


def by_rays_schema(config: Config) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def strictly(config: Config, root: Path) -> None:
    """What Ray's schema lets pass and a start on AWS would not."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    ).input_shape
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        report = ParamValidator().validate(node | {"MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert node.get("InstanceType"), f"{name}: no InstanceType"
        assert not re.search(r"\bami-[0-9a-f]{8}", str(node)), f"{name}: an AMI id goes stale"
        assert kind.get("max_workers", config["max_workers"]) <= config["max_workers"]
    for there, here in config.get("file_mounts", {}).items():
        assert there.startswith("/") and (root / here).exists(), f"file_mounts: no {here}"
    asked = re.findall(r"ray(?:\[[a-z,]*\])?==([\w.]+)|rayproject/ray:([\w.]+)", str(config))
    assert asked, "the version of Ray is left open"
    for pair in asked:
        assert "".join(pair) == version("ray")


def test_there_is_a_file_for_aws() -> None:
    assert CLUSTER / "aws.yaml" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_cluster_file_is_valid(path: Path) -> None:
    config = load(path)
    by_rays_schema(config)
    strictly(config, CLUSTER.parent)


def _misspelt(config: Config) -> None:
    config["available_node_types"]["head"]["node_config"]["InstanceTyp"] = "m6i.large"


def _deeply_misspelt(config: Config) -> None:
    disk = config["available_node_types"]["head"]["node_config"]["BlockDeviceMappings"][0]
    disk["Ebs"]["VolumeSise"] = 9


def _stale_image(config: Config) -> None:
    config["available_node_types"]["head"]["node_config"]["ImageId"] = "ami-0123456789abcdef0"


def _mount(config: Config) -> None:
    config["file_mounts"] = {"/home/ubuntu/x": "no/such/folder"}


def _version(config: Config) -> None:
    config["setup_commands"] = ["pip install 'ray[default]==2.9.0'"]


@pytest.mark.parametrize("harm", [_misspelt, _deeply_misspelt, _stale_image, _mount, _version])
def test_the_stricter_check_sees_what_rays_schema_does_not(harm: Any) -> None:
    config = load(CLUSTER / "aws.yaml")
    harm(config)
    by_rays_schema(config)
    with pytest.raises(AssertionError):
        strictly(config, CLUSTER.parent)


def test_the_head_does_not_train_and_nothing_costs_while_nothing_waits() -> None:
    config = load(CLUSTER / "aws.yaml")
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert all(kind.get("min_workers", 0) == 0 for kind in kinds.values())
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_nothing_listens_but_ssh() -> None:
    config = load(CLUSTER / "aws.yaml")
    assert "IpPermissions" not in config["provider"]["security_group"]
    (start,) = [c for c in config["head_start_ray_commands"] if "--head" in c]
    assert "--dashboard-host=127.0.0.1" in start


def test_every_field_is_explained() -> None:
    lines = (CLUSTER / "aws.yaml").read_text().splitlines()
    for i, line in enumerate(lines):
        if re.match(r"[a-z_]+:", line):
            assert lines[i - 1].startswith("#"), f"{line} has no comment"
    text = "\n".join(lines)
    config = load(CLUSTER / "aws.yaml")
    for kind in config["available_node_types"].values():
        instance = re.escape(kind["node_config"]["InstanceType"])
        assert re.search(rf"{instance} #.*\d\.\d\d an hour", text), f"{instance}: no price"


@pytest.mark.parametrize("page", sorted(CLUSTER.glob("*.md")), ids=lambda page: page.name)
def test_every_command_of_ours_on_a_page_is_there(page: Path) -> None:
    named = set(re.findall(r"python -m ([a-z_]+(?:\.[a-z_0-9]+)+)", page.read_text()))
    assert named, "a page without a command"
    for module in named:
        path = CLUSTER.parent / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("name", ["head", "worker"])
def test_no_profile_may_do_everything(name: str) -> None:
    policy = json.loads((CLUSTER / "iam" / f"{name}.json").read_text())
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
            service, _, verb = action.partition(":")
            if service in ("s3", "iam") or "Condition" not in statement:
                assert statement["Resource"] != "*", f"{action} on everything"
            if verb.startswith("Terminate"):
                condition = statement["Condition"]["StringEquals"]
                cluster = load(CLUSTER / "aws.yaml")["cluster_name"]
                assert condition == {"aws:ResourceTag/ray-cluster-name": cluster}
    if name == "worker":
        assert {a.partition(":")[0] for s in policy["Statement"] for a in s["Action"]} == {"s3"}
