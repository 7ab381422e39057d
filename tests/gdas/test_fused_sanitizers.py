"""The kernels' own tests again: with sanitizers, and compiled for processors with AVX2 alone.

A child process runs them, because the address sanitizer has to be loaded before anything else.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gdas.cnn.fused import build
from tests.readme import ROOT

TESTS = (
    "tests/gdas/test_fused_kernels.py",
    "tests/gdas/test_fused_operations.py",
    "tests/gdas/test_fused_bench201.py",
)
NETWORKS = "tests/gdas/test_fused_networks.py"
USUAL = "-O1 -g -std=c++17 -fPIC -pthread"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
AVX2 = "-mavx2 -mfma"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ and its sanitizers"),
]


def runtime(name: str) -> str:
    """The path of one of the compiler's libraries; skips the test without it."""
    line = ["g++", f"-print-file-name={name}"]
    found = subprocess.run(line, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip(f"g++ has no {name}")
    return str(Path(found).resolve())


def run_tests(tmp_path: Path, *tests: str, **environment: str) -> None:
    own = {"GDAS_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1", "CXX": "g++"}
    line = [sys.executable, "-m", "pytest", "-x", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*line, *tests],
        cwd=ROOT,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert list(tmp_path.glob("kernels-*.so")), "the kernels were not compiled"
    assert " passed" in done.stdout and "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("processor", ["native", "avx2"])
def test_no_kernel_reads_or_writes_out_of_bounds_or_does_what_is_undefined(
    tmp_path: Path, processor: str
) -> None:
    if processor == "avx2" and platform.machine() != "x86_64":
        pytest.skip("not an x86 processor")
    flags = AVX2 if processor == "avx2" else " ".join(build._native(["g++"]))
    run_tests(
        tmp_path,
        *TESTS,
        GDAS_KERNEL_FLAGS=f"{USUAL} {flags} {SANITIZERS}",
        LD_PRELOAD=f"{runtime('libasan.so')} {runtime('libubsan.so')} {runtime('libstdc++.so')}",
        ASAN_OPTIONS="detect_leaks=0",  # Python and PyTorch never free some of their memory
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="not an x86 processor")
def test_the_same_source_serves_processors_without_avx_512(tmp_path: Path) -> None:
    flags = f"{USUAL.replace('-O1 -g', '-O3')} {AVX2}"
    run_tests(tmp_path, *TESTS, NETWORKS, GDAS_KERNEL_FLAGS=flags)
