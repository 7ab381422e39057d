"""An S3 server in this process, in memory: it counts requests, and refuses some if it is told to.

It knows what the store asks: put, get, head, list and delete objects of one bucket. Moto is nearer
to the real one, but answers neither "SlowDown" nor "ExpiredToken".
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
"""Objects in one answer to a listing, as in S3."""


@dataclass
class Objects:
    """A bucket.

    Attributes:
        content: every object by its key.
        requests: what was asked, as (method, key or the listing's prefix).
        refusal: the status and S3's code for it that every request gets now; None: they are served.
        read_only: no key with this start can be written; "": all can.
        expired: requests signed with this key have expired credentials.
        expired_status: the status that S3, or what speaks S3, gives them.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    read_only: str = ""
    expired: str = ""
    expired_status: int = 400
    port: int = 0

    def address(self, name: str) -> str:
        """The address of a folder in the bucket, with a key that is only valid here."""
        host = quote(f"127.0.0.1:{self.port}")
        return f"s3://bucket/{name}?region=us-east-1&scheme=http&endpoint_override={host}"


@contextmanager
def served(objects: Objects) -> Iterator[Objects]:
    """Serve a bucket on this machine."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize, disable_nagle_algorithm = -1, True  # an answer is one packet, at once

        def _refused(self, key: str) -> bool:
            objects.requests.append((self.command, key))
            length = int(self.headers.get("Content-Length") or 0)
            self.body = self.rfile.read(length)
            signed = self.headers.get("Authorization", "")
            refusal, writes = objects.refusal, self.command in ("PUT", "DELETE")
            if writes and objects.read_only and key.startswith(objects.read_only):
                refusal = 403, "AccessDenied"
            if objects.expired and f"Credential={objects.expired}/" in signed:
                refusal = objects.expired_status, "ExpiredToken"
            if refusal is None:
                return False
            status, code = refusal
            self._send(status, _xml("Error", f"<Code>{code}</Code><Message>no</Message>"))
            return True

        def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _object(self) -> None:
            key = unquote(urlsplit(self.path).path).partition("/bucket/")[2]
            if self._refused(key):
                return
            if key not in objects.content:
                self._send(404, _xml("Error", "<Code>NoSuchKey</Code>"))
                return
            body = objects.content[key]
            self._send(200, body, ETag=_tag(body), Last_Modified=formatdate(usegmt=True))

        def do_HEAD(self) -> None:
            self._object()

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(asked.query).items()}
            if "list-type" not in query:
                self._object()
                return
            prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
            if self._refused(prefix):
                return
            keys = [k for k in sorted(objects.content) if k.startswith(prefix) and k > after]
            more = len(keys) > PAGE
            entries = "".join(
                f"<Contents><Key>{escape(k)}</Key><Size>{len(objects.content[k])}</Size>"
                f"<ETag>{_tag(objects.content[k])}</ETag>"
                "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
                for k in keys[:PAGE]
            )
            token = keys[PAGE - 1] if more else ""
            head = (
                f"<IsTruncated>{str(more).lower()}</IsTruncated>"
                f"<NextContinuationToken>{token}</NextContinuationToken>"
            )
            self._send(200, _xml("ListBucketResult", head + entries))

        def do_PUT(self) -> None:
            key = unquote(urlsplit(self.path).path).partition("/bucket/")[2]
            if not self._refused(key):
                objects.content[key] = self.body
                self._send(200, ETag=_tag(self.body))

        def do_DELETE(self) -> None:
            key = unquote(urlsplit(self.path).path).partition("/bucket/")[2]
            if not self._refused(key):
                objects.content.pop(key, None)
                self._send(204)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        objects.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield objects
        finally:
            server.shutdown()


def _xml(name: str, inside: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inside}</{name}>'.encode()


def _tag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
