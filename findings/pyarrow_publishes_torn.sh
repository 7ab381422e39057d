#!/bin/sh
# pyarrow's S3 output stream, left by an exception inside `with`, publishes what it was given so far
# as a whole object, over an earlier one of that name: leaving the block closes it, and closing
# commits. A stream that is dropped without close() does the same.
# Guessed: the upload is given up, as an object store's atomic writes allow and as boto3's
# upload_fileobj and obstore's open_writer do.
# Whoever streams a file to S3 with pyarrow has torn objects after every Ctrl-C.
# Seen with pyarrow 25.0.1 against moto 5.2.5; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pyarrow==25.0.1 "moto[server]==5.2.5" boto3==1.44.8
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import socket
import subprocess
import sys
import time
from importlib.metadata import version

import boto3
from pyarrow import fs

print("pyarrow", version("pyarrow"), "moto", version("moto"))
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-p", str(port)],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
    except OSError:
        time.sleep(0.1)
keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
client.create_bucket(Bucket="bucket")
client.put_object(Bucket="bucket", Key="left", Body=b"the earlier, whole object")
files = fs.S3FileSystem(
    access_key="x", secret_key="x", region="us-east-1",
    endpoint_override=f"127.0.0.1:{port}", scheme="http",
)
part = b"x" * (6 << 20)
try:
    with files.open_output_stream("bucket/left") as stream:
        stream.write(part)
        raise OSError("the source cannot be read any further")
except OSError:
    pass
stream = files.open_output_stream("bucket/dropped")
stream.write(part)
del stream
gc.collect()
listed = client.list_objects_v2(Bucket="bucket")["Contents"]
found = {entry["Key"]: entry["Size"] for entry in listed}
server.kill()
print("guessed: {'left': 25}")
print("found:  ", found)
if found != {"left": len(part), "dropped": len(part)}:
    raise SystemExit("it gives such uploads up now")
PYTHON
