#!/bin/sh
# obstore's put answers {"e_tag": ..., "version": None} where a store keeps no versions, and takes
# that very answer back as the mode of the next put only without the key: "'None' is not an instance
# of 'str'", a TypeError. One would have guessed that what put returns (PutResult) can be handed to
# put as the version to replace: the type of that, UpdateVersion, has `version: str | None`, and its
# documentation says to keep both keys.
# Whoever writes compare-and-swap with it has to drop the keys without a value.
# Seen with obstore 0.12.1; fails if that has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check obstore==0.12.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import obstore
from obstore.store import MemoryStore

print("obstore", version("obstore"))
store = MemoryStore()
first = obstore.put(store, "object", b"1", mode="create")
print("put returned:", first)
try:
    obstore.put(store, "object", b"2", mode=first)
except TypeError as error:
    print("the same as mode:", type(error).__name__, str(error).splitlines()[0])
else:
    raise SystemExit("it takes its own answer now")
obstore.put(store, "object", b"2", mode={"e_tag": first["e_tag"]})
assert bytes(obstore.get(store, "object").bytes()) == b"2"
print("without the key: replaced")
PYTHON
