#!/bin/sh
# pyarrow 25.0.1: in an expression (a filter or the columns of a dataset, Table.filter, acero) a number
# is given the smallest type that holds it, even a scalar of a type of its own, and the result follows
# that. So `field("n") / 3.0` of an int64 column is float32 (0.33333334), `/ 0.1` is float64, and
# `field("steps") * 100` of an int16 column is int16 and wraps: 400 becomes -25536. A filter on
# `field("right") / 10000.0 == 0.9361` finds no row.
# Guessed: what pc.divide and pc.multiply give for the same column and number: float64 and int64.
# An open issue (apache/arrow 36719) has it for values that then do not fit, which is an error. To cast
# the column first helps: field("n").cast("float64") / 3.0, field("steps").cast("int64") * 100.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==25.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

print("pyarrow", pa.__version__)
runs = pa.table({"right": pa.array([9361, 1]), "steps": pa.array([300, 400], pa.int16())})
seen = []
for name, operation, number in (
    ("right", pc.divide, 3.0),
    ("right", pc.divide, 10000.0),
    ("right", pc.multiply, 0.1),
    ("steps", pc.multiply, 100),
):
    guessed = operation(runs[name], number)
    found = ds.dataset(runs).to_table(columns={"x": operation(pc.field(name), number)})["x"]
    print(f"{operation.__name__} {name}, {number}:")
    print(f"  guessed, of the column: {guessed.type} {guessed.to_pylist()}")
    print(f"  seen, of the expression: {found.type} {found.to_pylist()}")
    seen.append((str(guessed.type), str(found.type), found.to_pylist()[1]))
third = runs.filter(pc.field("right") / 10000.0 == 0.9361).num_rows
cast = runs.filter(pc.field("right").cast("float64") / 10000.0 == 0.9361).num_rows
typed = pc.field("right") / pc.scalar(pa.scalar(3.0, pa.float64()))
typed = ds.dataset(runs).to_table(columns={"x": typed})["x"].type
print("right / pa.scalar(3.0, pa.float64()): guessed double, seen", typed)
print("rows with right / 10000.0 == 0.9361: guessed 1, seen", third, "and after a cast", cast)
types = [one[:2] for one in seen]
wrong = [("double", "float"), ("double", "float"), ("double", "double"), ("int64", "int16")]
if types != wrong or seen[3][2] != -25536 or typed != "float" or (third, cast) != (0, 1):
    sys.exit("expressions have other types now")
PYTHON
