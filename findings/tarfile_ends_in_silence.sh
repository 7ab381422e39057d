#!/bin/sh
# Python's tarfile ends its listing in silence at a member whose header has a wrong checksum: all
# that comes after it is missing, without an error or a warning. One would have guessed
# tarfile.ReadError, as for a tar that is cut off within a member; GNU tar says "Skipping to next
# header", lists what follows and exits with 2.
# Whoever reads data sets from tars has to look for the 512 zero bytes that close one.
# Seen with Python 3.11.7 and GNU tar 1.34; fails if that has changed. Needs python3 and tar.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 - <<'PYTHON'
import io
import subprocess
import sys
import tarfile
from pathlib import Path

print("Python", sys.version.split()[0])
print(subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout.split("\n")[0])
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name in ("a", "b", "c"):
        member = tarfile.TarInfo(name)
        member.size = 512
        tar.addfile(member, io.BytesIO(bytes([120]) * 512))
whole = buffer.getvalue()
harmed = bytearray(whole)
harmed[1024 + 150] ^= 1  # in the checksum of b's header
Path("harmed.tar").write_bytes(harmed)
found = tarfile.open("harmed.tar").getnames()
print("tarfile:", found)
gnu = subprocess.run(["tar", "tf", "harmed.tar"], capture_output=True, text=True)
print("GNU tar:", gnu.stdout.split(), "exit code", gnu.returncode)
assert tarfile.open(fileobj=io.BytesIO(whole)).getnames() == ["a", "b", "c"]
assert found == ["a"], "it says so now"
assert gnu.returncode == 2 and gnu.stdout.split() == ["a", "c"]
PYTHON
