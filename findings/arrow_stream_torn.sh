#!/bin/sh
# An Arrow stream (not file) that ends after any of its record batches reads as a whole one: the end
# mark is optional, so a copy that was cut there gives a shorter table and no error. A cut one byte
# further on is refused.
# Guessed: a reader misses the end mark that every writer writes, and raises.
# Data sets' hubs ship streams (Hugging Face's cached .arrow files): a torn one silently loses rows.
# Seen with pyarrow 25.0.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==25.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import pyarrow as pa

print("pyarrow", pa.__version__)
table = pa.table({"x": range(3000)})
sink, ends = pa.BufferOutputStream(), []
with pa.ipc.new_stream(sink, table.schema) as writer:
    for batch in table.to_batches(max_chunksize=1000):
        writer.write_batch(batch)
        ends.append(sink.tell())
whole = sink.getvalue().to_pybytes()


def rows(length):
    try:
        return pa.ipc.open_stream(whole[:length]).read_all().num_rows
    except pa.ArrowInvalid as error:
        return type(error).__name__


found = {"whole": rows(len(whole)), "cut": rows(ends[1]), "a byte more": rows(ends[1] + 1)}
print("guessed:", {"whole": 3000, "cut": "ArrowInvalid", "a byte more": "ArrowInvalid"})
print("seen:   ", found)
if found != {"whole": 3000, "cut": 2000, "a byte more": "ArrowInvalid"}:
    raise SystemExit("torn streams are read otherwise now")
PYTHON
