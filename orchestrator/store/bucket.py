"""A bucket as obstore writes it: every object appears as a whole or not at all. Pure.

pyarrow publishes what a stream was given so far if the stream is dropped, or left by an exception
(seen in pyarrow 25.0.1: it closes the stream, and closing commits). An interrupted upload would
appear as a whole object. obstore commits at the end of an upload alone, and gives it up on an
exception. So all reading is pyarrow's here, and all writing obstore's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from gdas.errors import InputError, one_line

ANSWER_S = 20.0
"""How long to wait for an answer, in seconds."""
PART = 10 << 20
"""Files above this many bytes are sent in parts of this size, or of larger ones."""
PARTS = 9000
"""A little less than the number of parts that S3 accepts."""

ObjectStore = S3Store | GCSStore | AzureStore
T = TypeVar("T")


class Uploads(Protocol):
    """What writes objects, each as a whole or not at all; keys start with the bucket's name."""

    def put(self, key: str, content: bytes) -> None:
        """Create or replace an object."""

    def put_file(self, key: str, path: Path) -> None:
        """Create or replace an object by a file's content, which may not fit in memory."""


@dataclass(frozen=True)
class BucketUploads:
    """Uploads to the bucket of an address; nothing is opened before the first one.

    Attributes:
        address: an address in the bucket, as pyarrow takes it.
        bucket: the bucket's name.
        region: the region that pyarrow found, if the store has regions.
    """

    address: str
    bucket: str
    region: str | None

    @cached_property
    def store(self) -> ObjectStore:
        """The bucket.

        Raises:
            InputError: obstore does not write to this kind of store.
        """
        return open_bucket(self.address, self.bucket, self.region)

    def renew(self) -> None:
        """Open the bucket anew at the next request, with the credentials that there are then."""
        self.__dict__.pop("store", None)

    def put(self, key: str, content: bytes) -> None:
        """Create or replace an object with one request.

        Raises:
            OSError: the store does not answer; an earlier object of that name is unchanged.
        """
        name = key.partition("/")[2]
        answered(lambda: obstore.put(self.store, name, content, use_multipart=False))

    def put_file(self, key: str, path: Path) -> None:
        """Create or replace an object by a file's content, in parts if it is long.

        Ctrl-C is answered between two parts.

        Raises:
            OSError: the file cannot be read, or the store does not answer; an earlier object of
                that name is unchanged.
        """
        size = path.stat().st_size
        if size <= PART:
            self.put(key, path.read_bytes())
        else:
            answered(lambda: self._put_parts(key.partition("/")[2], path, size))

    def _put_parts(self, name: str, path: Path, size: int) -> None:
        part = max(PART, -(-size // PARTS))
        with (
            path.open("rb") as file,
            # An exception makes the writer give the upload up; it commits at the end of the block.
            obstore.open_writer(self.store, name, buffer_size=part) as writer,
        ):
            while piece := file.read(part):
                writer.write(piece)


def open_bucket(address: str, bucket: str, region: str | None, prefix: str = "") -> ObjectStore:
    """Open the bucket of an address, or the folder `prefix` in it; no request is sent.

    Args:
        address: an address in the bucket, with its options and perhaps its credentials.
        bucket: the bucket's name.
        region: its region, if the store has regions.
        prefix: the folder.

    Raises:
        InputError: obstore does not write to this kind of store.
    """
    scheme = urlsplit(address).scheme
    patient: dict[str, Any] = {"retry_config": {"retry_timeout": timedelta(seconds=ANSWER_S)}}
    if scheme == "s3":
        return _s3(address, region, bucket, prefix, patient)
    if scheme in ("gs", "gcs"):
        return GCSStore(bucket, prefix=prefix, **patient)
    if scheme in ("abfs", "abfss"):
        place = urlsplit(address)
        azure = from_url(f"{scheme}://{place.netloc}/{prefix}", **patient)
        assert isinstance(azure, AzureStore)
        return azure
    raise InputError(
        f"{address}: {scheme}:// has no conditional write to keep a second driver away with, and "
        "an interrupted upload to it would be taken for a whole one; name an s3://, gs:// or "
        "abfs:// address, or a folder"
    )


def answered(ask: Callable[[], T]) -> T:
    """The store's answer; if there is none, OSError is raised, as by the rest of the store."""
    try:
        return ask()
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        code = re.search(r"<Code>(\w+)</Code>", str(error))  # the text up to there is long
        text = one_line(error, 200)
        raise OSError(f"{code[1]}: {text}" if code else text) from None


def _s3(
    address: str, region: str | None, bucket: str, prefix: str, patient: dict[str, Any]
) -> S3Store:
    """The bucket as pyarrow sees it: with the same region, endpoint and credentials."""
    place = urlsplit(address)
    options = {key: values[-1] for key, values in parse_qs(place.query).items()}
    given: dict[str, Any] = {"region": region or "us-east-1"}
    if "endpoint_override" in options:
        given["endpoint"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
    if place.username and place.password:
        given["access_key_id"], given["secret_access_key"] = place.username, place.password
    elif (credentials := _credentials()) is not None:
        given["credential_provider"] = credentials
    return S3Store(bucket, prefix=prefix, client_options={"allow_http": True}, **given, **patient)


def _credentials() -> Any:
    """boto3's credentials, if it is installed: obstore alone reads no profiles of `~/.aws`."""
    if find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # boto3 found none; obstore has other sources
        return None
