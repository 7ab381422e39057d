#!/bin/sh
# pyarrow 25.0.1: a filter that is given to the read of a Parquet file does not find rows whose value
# is not a number, if all other values of the row group are equal, even `is_nan`, and never finds
# them through a negated comparison; the same filter on the table, once it is read, finds them.
# Guessed: filtering while reading and filtering afterwards give the same rows.
# Statistics of a row group leave not-a-number out, so a group of 93.5 and NaN says that it reaches
# from 93.5 to 93.5, and the reader takes every value for 93.5. Whoever looks for failed runs so
# (`filters=pc.is_nan(...)`, or all that are `~(accuracy > 10)`) is told that there are none.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pyarrow==25.0.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
accuracy = pc.field("accuracy")
filters = {
    "is_nan(accuracy)": pc.is_nan(accuracy),
    "accuracy != 93.5": accuracy != 93.5,
    "not (accuracy > 10)": ~(accuracy > 10.0),
    "accuracy > 10": accuracy > 10.0,
}
seen = {}
for values in ([93.5, math.nan, 93.5], [93.5, math.nan, 91.25]):
    table = pa.table({"seed": [0, 1, 2], "accuracy": values})
    pq.write_table(table, "runs.parquet")
    statistics = pq.read_metadata("runs.parquet").row_group(0).column(1).statistics
    print(f"{values}: statistics from {statistics.min} to {statistics.max}")
    for name, condition in filters.items():
        while_read = pq.read_table("runs.parquet", filters=condition)["seed"].to_pylist()
        afterwards = pq.read_table("runs.parquet").filter(condition)["seed"].to_pylist()
        print(f"  {name}: seeds {afterwards} of the table, and guessed; {while_read} while reading")
        seen[values[2], name] = (while_read, afterwards)
expected = {
    (93.5, "is_nan(accuracy)"): ([], [1]),
    (93.5, "accuracy != 93.5"): ([], [1]),
    (93.5, "not (accuracy > 10)"): ([], [1]),
    (93.5, "accuracy > 10"): ([0, 2], [0, 2]),
    (91.25, "is_nan(accuracy)"): ([1], [1]),
    (91.25, "accuracy != 93.5"): ([1, 2], [1, 2]),
    (91.25, "not (accuracy > 10)"): ([], [1]),
    (91.25, "accuracy > 10"): ([0, 2], [0, 2]),
}
sys.exit("other rows are found now" if seen != expected else 0)
PYTHON
