#!/bin/sh
# duckdb 2.0.1 on a Parquet file of pyarrow 25.0.1: `where accuracy = 93.5` gives a row whose accuracy
# is not a number as well, if the others are 93.5; `isnan(accuracy)` gives no row, in any such file,
# and max() is the largest number. Read into a table, or written by duckdb itself, the same rows are
# told apart (and NaN is the largest, as duckdb defines it).
# Guessed: what a query gives does not depend on which library wrote the file; an older duckdb took
# every column of floats for one that may have a NaN.
# By default read_parquet now believes statistics, which leave NaN out, and where they promise that
# a condition holds for every row it is not evaluated. read_parquet(FILE, can_have_nan = true) helps.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  duckdb==2.0.1 pyarrow==25.0.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "pyarrow", pa.__version__)
runs = pa.table({"seed": [0, 1, 2], "accuracy": [93.5, math.nan, 93.5]})
pq.write_table(runs, "arrow.parquet")
duckdb.sql("copy runs to 'duckdb.parquet' (format parquet)")
seen = {}
for source in (
    "runs",
    "read_parquet('duckdb.parquet')",
    "read_parquet('arrow.parquet')",
    "read_parquet('arrow.parquet', can_have_nan = true)",
):
    rows = [
        [row[0] for row in duckdb.sql(f"select seed from {source} where {where} order by seed").fetchall()]
        for where in ("accuracy = 93.5", "accuracy <> 93.5", "isnan(accuracy)")
    ]
    largest = duckdb.sql(f"select max(accuracy) from {source}").fetchall()[0][0]
    seen[source] = (*rows, str(largest))
    print(f"{source}: = 93.5 {rows[0]}, <> 93.5 {rows[1]}, isnan {rows[2]}, max {largest}")
right = ([0, 2], [1], [1], "nan")
print("guessed, all four:", right)
wrong = ([0, 1, 2], [], [], "93.5")
expected = dict(zip(seen, (right, right, wrong, right), strict=True))
sys.exit("it reads such files otherwise now" if seen != expected else 0)
PYTHON
