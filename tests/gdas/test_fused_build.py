"""The kernels' library: compiled once for a machine, never shared, never the end of a run."""

from __future__ import annotations

import ctypes
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gdas.cnn.fused import build

ANSWER = 'extern "C" int answer() { return NUMBER; }\n'
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in build.COMPILERS), reason="no C++ compiler here"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "number.h").write_text("#define NUMBER 42\n")
    (folder / "answer.cpp").write_text(f'#include "number.h"\n{ANSWER}')
    return folder


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "GDAS_CACHE": str(tmp_path / "cache"), **more}


def answer(library: ctypes.CDLL | None) -> int:
    assert library is not None
    return int(library.answer())


@needs_compiler
def test_what_changes_the_code_makes_another_library(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = environment(tmp_path)
    assert build.pending(sources, where)
    first = build.load(sources, where)
    assert answer(first.library) == 42 and "compiled by" in first.words
    assert not build.pending(sources, where)
    assert not build.pending(sources, where | {"PATH": ""}), "there is no compiler to wait for"
    calls: list[str] = []
    monkeypatch.setattr(build, "_compile", lambda *args: calls.append("again"))
    assert answer(build.load(sources, where).library) == 42 and not calls
    monkeypatch.undo()
    monkeypatch.setattr(build, "FLAGS", ("-O0", "-fPIC"))
    (sources / "number.h").write_text("#define NUMBER 43\n")
    assert answer(build.load(sources, where).library) == 43
    monkeypatch.setattr(build, "processor", lambda: "another processor")
    assert answer(build.load(sources, where).library) == 43
    assert len(list((tmp_path / "cache").glob("*.so"))) == 3
    assert not list((tmp_path / "cache").glob("compiling-*"))


@needs_compiler
def test_many_at_once_compile_once_and_a_damaged_library_is_made_again(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, compiled = environment(tmp_path), []
    really = build._compile

    def counted(compiler: list[str], flags: list[str], code: Path, folder: Path) -> Path:
        compiled.append(folder)
        return really(compiler, flags, code, folder)

    monkeypatch.setattr(build, "FLAGS", ("-O0", "-fPIC"))
    monkeypatch.setattr(build, "_compile", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: build.load(sources, where), range(4)))
    assert [answer(each.library) for each in found] == [42] * 4 and len(compiled) == 1
    damaged = tmp_path / "other"
    shutil.copytree(tmp_path / "cache", damaged)
    (torn,) = damaged.glob("*.so")
    torn.write_bytes(torn.read_bytes()[:100])
    assert answer(build.load(sources, where | {"GDAS_CACHE": str(damaged)}).library) == 42
    assert len(compiled) == 2


@needs_compiler
def test_an_error_of_the_compiler_is_one_line_and_believed_for_a_while(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = environment(tmp_path)
    (sources / "wrong.cpp").write_text("int f() { return there_is_no_such_name; }\n")
    failed = build.load(sources, where)
    assert failed.library is None and "\n" not in failed.words
    assert "there_is_no_such_name" in failed.words
    monkeypatch.setattr(build, "_compile", lambda *args: pytest.fail("compiled again"))
    again = build.load(sources, where)
    assert "there_is_no_such_name" in again.words and "delete" in again.words
    monkeypatch.undo()
    (note,) = (tmp_path / "cache").glob("*.failed")
    os.utime(note, (0, 0))
    assert "delete" not in build.load(sources, where).words
    (sources / "wrong.cpp").write_text("")
    assert answer(build.load(sources, where).library) == 42


def test_without_a_compiler_or_a_folder_there_is_a_reason_and_a_fix(
    sources: Path, tmp_path: Path
) -> None:
    nothing = build.load(sources, environment(tmp_path, PATH=str(tmp_path)))
    assert nothing.library is None and "apt install g++" in nothing.words
    unknown = build.load(sources, environment(tmp_path, CXX="no-such-compiler -O2"))
    assert unknown.library is None and "CXX=no-such-compiler -O2: no such" in unknown.words
    (tmp_path / "file").write_text("")
    closed = build.load(sources, environment(tmp_path, GDAS_CACHE=str(tmp_path / "file" / "in")))
    assert closed.library is None
    assert "GDAS_CACHE" in closed.words or "no C++ compiler" in closed.words


def test_the_cache_is_the_users_own(tmp_path: Path) -> None:
    assert build.cache_folder({"HOME": "/home/ada"}) == Path("/home/ada/.cache/gdas")
    shared = {"HOME": "/home/ada", "XDG_CACHE_HOME": "/cache/ada"}
    assert build.cache_folder(shared) == Path("/cache/ada/gdas")
    assert build.cache_folder(shared | {"GDAS_CACHE": "/mine"}) == Path("/mine")
    assert len(build.processor()) > 5
