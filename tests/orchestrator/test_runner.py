"""What of Ray can be told without starting it."""

from __future__ import annotations

import pytest
import ray

from gdas.errors import InputError
from orchestrator.runner import ray_cluster


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "Ray did not start on this machine"), ("10.0.0.1:6379", "--address 10.0.0.1:6379: no")],
)
def test_a_ray_that_does_not_start_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str | None, said: str
) -> None:
    def fails(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(InputError) as refused, ray_cluster(address):
        pass
    assert str(refused.value).startswith(said)
    assert "timed out during startup" in str(refused.value) and "\n" not in str(refused.value)
