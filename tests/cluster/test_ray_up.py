"""`ray up` and `ray down` of aws.yaml against moto's EC2, with ssh that goes nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.cloud import REGION, Server
from tests.cluster.test_yaml import CLUSTER, load


def command_of_the_readme(*arguments: str, aws: Server, stubs: Path, home: Path) -> str:
    environment = os.environ | aws.environment
    environment |= {
        "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "BOTO_MAX_RETRIES": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments],
        cwd=CLUSTER.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def make_profiles() -> None:
    """As README.md says to, with the policies that are in the folder."""
    iam = boto3.client("iam", region_name=REGION)
    for name in ("head", "worker"):
        full = f"gdas-{name}"
        iam.create_role(
            RoleName=full, AssumeRolePolicyDocument=(CLUSTER / "iam" / "trust.json").read_text()
        )
        iam.put_role_policy(
            RoleName=full,
            PolicyName=full,
            PolicyDocument=(CLUSTER / "iam" / f"{name}.json").read_text(),
        )
        iam.create_instance_profile(InstanceProfileName=full)
        iam.add_role_to_instance_profile(InstanceProfileName=full, RoleName=full)


def instances(ec2: Any, *states: str) -> list[Any]:
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:ray-cluster-name", "Values": ["gdas"]},
            {"Name": "instance-state-name", "Values": list(states)},
        ]
    )
    return [i for reservation in found["Reservations"] for i in reservation["Instances"]]


@pytest.mark.slow
def test_up_starts_the_head_alone_and_down_ends_it(
    aws: Server, stubs: Path, tmp_path: Path
) -> None:
    make_profiles()
    ec2 = boto3.client("ec2", region_name=REGION)
    config = load(CLUSTER / "aws.yaml")
    ray = partial(command_of_the_readme, aws=aws, stubs=stubs, home=tmp_path)
    ray("up", "cluster/aws.yaml", "-y", "--no-config-cache")

    (head,) = instances(ec2, "pending", "running")
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert tags["ray-node-type"] == "head" and tags["ray-node-status"] == "up-to-date"
    wanted = config["available_node_types"]["head"]["node_config"]
    assert head["InstanceType"] == wanted["InstanceType"]
    assert head["ImageId"] == wanted["ImageId"]
    assert head["IamInstanceProfile"]["Arn"].endswith("/gdas-head")
    roles = {r["RoleName"] for r in boto3.client("iam").list_roles()["Roles"]}
    assert not {role for role in roles if "autoscaler" in role}, "no role with full access is made"
    key = ec2.describe_key_pairs()["KeyPairs"][0]["KeyName"]
    assert head["KeyName"] == key and list((tmp_path / ".ssh").glob(f"{key}*.pem"))

    group = ec2.describe_security_groups(GroupIds=[head["SecurityGroups"][0]["GroupId"]])
    (group,) = group["SecurityGroups"]
    assert group["GroupName"] == "gdas-cluster"
    open_to_the_world = [
        (rule["FromPort"], rule["ToPort"])
        for rule in group["IpPermissions"]
        if rule.get("IpRanges")
    ]
    assert open_to_the_world == [(22, 22)]

    log = (stubs / "commands.log").read_text()
    at = -1
    for command in [
        *config["setup_commands"],
        *config["head_setup_commands"],
        *config["head_start_ray_commands"],
    ]:
        # As typed, but for the quoting that ssh needs.
        piece = max(command.replace('"', "'").split("'"), key=len)
        found = log.find(piece, at + 1)
        assert found > at, f"not run, or not in its turn: {command}"
        at = found
    rsyncs = [line for line in log.splitlines() if line.startswith("rsync")]
    assert any(line.rstrip().endswith(":/home/ubuntu/gdas/") or "gdas" in line for line in rsyncs)
    assert all(f"--exclude {what}" in rsyncs[-1] for what in (".git/**", "data/**", "runs/**"))

    ray("down", "cluster/aws.yaml", "-y")
    assert instances(ec2, "pending", "running", "stopped") == []
