"""One object on an object store that is replaced only as the object that was read. Pure.

pyarrow's file systems offer no conditional write, so this alone goes through obstore: an object is
made only if there is none (`If-None-Match`), and replaced only if it is still the one that was read
(`If-Match` and its ETag; on Google Cloud Storage its generation). The store decides in one step, so
that of any number of writers exactly one succeeds, however slow the others are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from gdas.errors import InputError, one_line
from orchestrator.store.storage import Storage

ANSWER_S = 20.0
"""How long an answer is waited for."""
Version = dict[str, str]
"""Which version of an object this is, as obstore takes it: an ETag, a generation."""
T = TypeVar("T")


class Changed(Exception):
    """Another process made, replaced or removed the object since it was read."""


@dataclass(frozen=True)
class ConditionalObject:
    """An object that is never written over one that its writer has not read."""

    store: S3Store | GCSStore | AzureStore
    name: str

    def read(self) -> tuple[bytes, Version] | None:
        """The content and its version; None if there is no object.

        Raises:
            OSError: the store does not answer.
        """
        try:
            found = _answered(lambda: obstore.get(self.store, self.name))
            return bytes(_answered(found.bytes)), _version(found.meta)
        except FileNotFoundError:
            return None

    def write(self, content: bytes, over: Version | None) -> Version:
        """Make the object, or replace the version of it that was read.

        Args:
            over: that version; None: there must be no object.

        Returns:
            The version that was written.

        Raises:
            Changed: there is another version, or none any more; nothing was written. After a lost
                answer it may be the version that this very call wrote.
            OSError: the store does not answer.
        """
        mode: Any = over or "create"
        try:
            put = _answered(lambda: obstore.put(self.store, self.name, content, mode=mode))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            raise Changed(one_line(error, 200)) from None
        return _version(put)


def _version(answer: Any) -> Version:
    """What tells a version, as obstore's answers have it; it takes no key without a value back."""
    return {key: answer[key] for key in ("e_tag", "version") if answer.get(key) is not None}


def _answered(ask: Callable[[], T]) -> T:
    """What the store answers; that it does not is an OSError, as everywhere."""
    try:
        return ask()
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        raise OSError(one_line(error, 200)) from None


def conditional_object(storage: Storage, name: str) -> ConditionalObject:
    """An object of a folder on an object store; nothing is asked of the store.

    Raises:
        InputError: this kind of store is not known to write conditionally.
    """
    scheme = urlsplit(storage.address).scheme
    bucket, _, prefix = storage.root.partition("/")
    patient: dict[str, Any] = {"retry_config": {"retry_timeout": timedelta(seconds=ANSWER_S)}}
    if scheme == "s3":
        return ConditionalObject(_s3(storage, bucket, prefix, patient), name)
    if scheme in ("gs", "gcs"):
        return ConditionalObject(GCSStore(bucket, prefix=prefix, **patient), name)
    if scheme in ("abfs", "abfss"):
        azure = from_url(storage.address.partition("?")[0], **patient)
        assert isinstance(azure, AzureStore)
        return ConditionalObject(azure, name)
    raise InputError(
        f"--out {storage.address}: {scheme}:// has no conditional write to keep a second driver "
        "away with; name an s3://, gs:// or abfs:// address, or a folder"
    )


def _s3(storage: Storage, bucket: str, prefix: str, patient: dict[str, Any]) -> S3Store:
    """The bucket as pyarrow sees it: the same region, endpoint and credentials."""
    address = urlsplit(storage.address)
    options = {key: values[-1] for key, values in parse_qs(address.query).items()}
    given: dict[str, Any] = {"region": storage.files.region or "us-east-1"}
    if "endpoint_override" in options:
        given["endpoint"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
    if address.username and address.password:
        given["access_key_id"], given["secret_access_key"] = address.username, address.password
    elif (credentials := _credentials()) is not None:
        given["credential_provider"] = credentials
    return S3Store(bucket, prefix=prefix, client_options={"allow_http": True}, **given, **patient)


def _credentials() -> Any:
    """Those that boto3 finds, if it is there: obstore by itself reads no profiles of `~/.aws`."""
    if find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # it found none; obstore looks itself
        return None
