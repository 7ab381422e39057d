#!/bin/sh
# pyarrow 25.0.1: importing it starts a thread that Python does not know of (its allocator's,
# `jemalloc_bg_thd`), and asking a column of whole numbers for its NumPy type imports pandas.
# Guessed: an import starts no thread, as with NumPy; `to_pandas_dtype` gives NumPy's class alone.
# So a process that means to be forked must not count its threads through `threading`, and a short
# program that only reads numbers pays for pandas, whose import takes longer than pyarrow's.
# Seen with these versions on Linux; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pyarrow==25.0.1 pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import os
import sys
import threading


def threads():
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    return sorted(name for name in names if not name.startswith("python"))


import numpy

after_numpy = threads()
import pyarrow

after_pyarrow = threads()
print(f"numpy {numpy.__version__}, pyarrow {pyarrow.__version__}")
print(f"threads besides Python's after importing numpy: guessed [], seen {after_numpy}")
print(f"and after importing pyarrow: guessed [], seen {after_pyarrow}")
print(f"known to Python: {threading.active_count()}")
before = "pandas" in sys.modules
kind = pyarrow.int64().to_pandas_dtype()
print(f"pandas imported by to_pandas_dtype() of int64 ({kind.__name__}): guessed False, seen {'pandas' in sys.modules}")
sys.exit(after_pyarrow != ["jemalloc_bg_thd"] or before or "pandas" not in sys.modules)
PYTHON
