#!/bin/sh
# python-zstandard's file interface (`zstandard.open`, `stream_reader`) ends a frame that is cut in
# the middle as if it were whole: half of the content, no error. Its `decompress` raises, as pyarrow's
# CompressedInputStream and gzip's files do.
# Guessed: reading past the cut raises, as gzip.open does (EOFError).
# Corpora are shipped as .jsonl.zst and .tar.zst: a torn download reads as a smaller data set.
# Seen with zstandard 0.25.0; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check zstandard==0.25.0
"$folder/venv/bin/python" - <<'PYTHON'
import gzip
import io
import random

import zstandard

print("zstandard", zstandard.__version__)
content = random.Random(0).randbytes(1 << 20)


def read(opened, encoded):
    """How many bytes come out of the first half of a compressed file."""
    try:
        return len(opened(io.BytesIO(encoded[: len(encoded) // 2])).read())
    except (EOFError, zstandard.ZstdError) as error:
        return type(error).__name__


encoded = zstandard.ZstdCompressor().compress(content)
of_gzip = read(gzip.open, gzip.compress(content))
of_zstandard = read(zstandard.open, encoded)
print("gzip:               ", of_gzip)
print("zstandard, guessed: ", "ZstdError")
print("zstandard, seen:    ", of_zstandard, "bytes of", len(content))
try:
    zstandard.ZstdDecompressor().decompress(encoded[: len(encoded) // 2])
    raise SystemExit("decompress accepts a torn frame now")
except zstandard.ZstdError:
    pass
if of_gzip != "EOFError" or not isinstance(of_zstandard, int) or of_zstandard >= len(content):
    raise SystemExit("torn frames are read otherwise now")
PYTHON
