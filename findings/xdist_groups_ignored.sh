#!/bin/sh
# pytest-xdist 3.8.0 beside pytest 9.2.0: `--dist loadgroup` no longer keeps the tests of an
# `xdist_group` in one process. It writes the group into an attribute of the item from which that
# pytest no longer makes the test's id, so every test is handed out by itself, without a word.
# Guessed: the group holds, as it does beside pytest 8.4.2, or a warning says that it does not.
# Fixtures of a module or session are then built in every process, and tests that must not run side
# by side (one port, one GPU) do. `--dist loadfile` still works.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/tests"
cat > "$folder/tests/test_group.py" <<'PYTHON'
import os
import time

import pytest

pytestmark = pytest.mark.xdist_group("one")


@pytest.mark.parametrize("number", range(6))
def test_it(number):
    time.sleep(0.2)
    with open(os.environ["SEEN"], "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON
for pytest in 8.4.2 9.2.0; do
  python3 -m venv "$folder/$pytest"
  "$folder/$pytest/bin/python" -m pip install --quiet --disable-pip-version-check \
    pytest=="$pytest" pytest-xdist==3.8.0
  (cd "$folder" && SEEN="$folder/seen-$pytest" "$folder/$pytest/bin/python" -m pytest -q -n 2 \
    --dist loadgroup -p no:cacheprovider tests) > "$folder/said"
  echo "pytest $pytest, pytest-xdist 3.8.0: processes that ran the group: guessed 1, seen" \
    "$(sort -u "$folder/seen-$pytest" | wc -l)"
done
test "$(sort -u "$folder/seen-8.4.2" | wc -l)" = 1 || { echo "8.4.2 parts the group now"; exit 1; }
test "$(sort -u "$folder/seen-9.2.0" | wc -l)" = 2 || { echo "9.2.0 keeps the group now"; exit 1; }
