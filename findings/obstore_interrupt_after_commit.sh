#!/bin/sh
# obstore's put raises KeyboardInterrupt only when it has finished: a Ctrl-C in the middle of an
# upload is seen after the last byte, and the object is there, whole, although the call raised.
# Guessed: the upload stops at once and nothing is there, or that an exception means "not written".
# Whoever takes the exception for "not uploaded" uploads twice; Ctrl-C waits for the whole file.
# (obstore's open_writer, written piece by piece, stops between two pieces and leaves nothing.)
# Seen with obstore 0.12.1 against moto 5.2.5; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  obstore==0.12.1 "moto[server]==5.2.5" boto3==1.44.8
"$folder/venv/bin/python" - <<'PYTHON'
import os
import signal
import threading
import time
from importlib.metadata import version

import boto3
import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

print("obstore", version("obstore"), "moto", version("moto"))
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
client.create_bucket(Bucket="bucket")
store = S3Store(
    "bucket", endpoint=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="x",
    secret_access_key="x", client_options={"allow_http": True},
)
content = bytes(64 << 20)


def interrupt():
    """Ctrl-C as soon as the upload has begun."""
    while not client.list_multipart_uploads(Bucket="bucket").get("Uploads"):
        time.sleep(0.01)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)


sent = []
threading.Thread(target=interrupt, daemon=True).start()
try:
    obstore.put(store, "object", content, max_concurrency=1)
    raised = False
except KeyboardInterrupt:
    raised = True
waited = time.monotonic() - sent[0]
listed = client.list_objects_v2(Bucket="bucket").get("Contents", [])
found = {entry["Key"]: entry["Size"] for entry in listed}
server.stop()
print("guessed: KeyboardInterrupt at once, no object")
print(f"found:   KeyboardInterrupt {raised}, {waited:.1f} s after Ctrl-C, objects {found}")
if not raised or found != {"object": len(content)}:
    raise SystemExit("an interrupted put behaves otherwise now")
PYTHON
