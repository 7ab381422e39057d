"""Passwords in addresses are refused, and not repeated, before anything records them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator import compare, doctor, reproduce_paper, send_runs, status
from orchestrator.experiment.credentials import refuse_credentials

SECRET = "geheim"
MLFLOW = f"http://me:{SECRET}@127.0.0.1:9"
S3 = f"s3://AKIA:{SECRET}/x@bucket/runs"
Main = Callable[[Sequence[str]], int]


@pytest.mark.parametrize(
    "main, words",
    [
        (reproduce_paper.main, ["smoke", f"mlflow.tracking_uri={MLFLOW}", "--dry-run"]),
        (reproduce_paper.main, ["smoke", "--out", S3]),
        (reproduce_paper.main, ["smoke", "--data", S3]),
        (
            reproduce_paper.main,
            ["smoke", f"mlflow.tracking_uri=http://h:5/?{SECRET}=1&token={SECRET}", "--dry-run"],
        ),
        (send_runs.main, ["out", "--to", f"https://h/mlflow?api_key={SECRET}"]),
        (doctor.main, [f"mlflow.tracking_uri={MLFLOW}"]),
        (send_runs.main, ["out", "--to", MLFLOW]),
        (status.main, [S3]),
        (compare.main, [S3, "out"]),
    ],
)
def test_a_password_is_refused_with_what_to_set_instead(
    main: Main,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert SECRET not in said.out + said.err
    assert "AWS_ACCESS_KEY_ID" in line or "MLFLOW_TRACKING_USERNAME" in line
    assert list(tmp_path.iterdir()) == []


def test_a_secret_behind_the_question_mark_is_a_secret() -> None:
    for address, instead in (
        (f"postgresql://host/mlflow?user=me&password={SECRET}", "PGPASSWORD"),
        (f"mysql+pymysql://host/mlflow?PASSWD={SECRET}", "PGPASSWORD"),
        (f"https://host/mlflow?access_token={SECRET}", "MLFLOW_TRACKING_USERNAME"),
        (f"s3://bucket/x?X-Amz-Signature={SECRET}", "AWS_ACCESS_KEY_ID"),
    ):
        with pytest.raises(InputError) as caught:
            refuse_credentials("--to", address)
        assert SECRET not in str(caught.value) and instead in str(caught.value)


def test_addresses_without_a_password_are_no_matter() -> None:
    for address in (
        *("http://127.0.0.1:5000", "s3://bucket/a@b", "gs://anonymous@bucket/x", None),
        *("abfss://box@account.dfs.core.windows.net/x", "runs/a:b@c", "http://h:1/a?b=c@d"),
        *("sqlite:///runs/password=x.db", "postgresql://host/db?sslmode=require", "a?token=b"),
        *("http://h/?token=", "https://h/mlflow?tokens=3"),
    ):
        refuse_credentials("--out", address)


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert status.main(["~/runs"]) == 2
    assert f"{tmp_path}/runs: no study there" in capsys.readouterr().err


def test_an_address_with_an_empty_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["s3://bucket//x"]) == 2
    assert "has an empty part; must be such as s3://bucket/x" in capsys.readouterr().err


def test_another_users_folder_is_a_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", closed)
    assert status.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "Permission denied; name a folder" in line
