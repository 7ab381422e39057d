"""Compare and swap for one object on an object store. Pure.

pyarrow's file systems offer no conditional write, so this module uses obstore. An object is created
only if there is none (`If-None-Match`), and replaced only if it is still the version that was read
(`If-Match` with its ETag; on Google Cloud Storage, its generation). The store decides this in one
step, so exactly one of any number of writers succeeds, however slow the others are.
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
"""How long to wait for an answer, in seconds."""
Version = dict[str, str]
"""An object's version in obstore's form: an ETag or a generation."""
T = TypeVar("T")


class Changed(Exception):
    """Another process created, replaced or removed the object since it was read."""


@dataclass(frozen=True)
class ConditionalObject:
    """An object that is replaced only if the writer has read its current version."""

    store: S3Store | GCSStore | AzureStore
    name: str

    def read(self) -> tuple[bytes, Version] | None:
        """Read the content and its version; None if there is no object.

        Raises:
            OSError: the store does not answer.
        """
        try:
            found = _answered(lambda: obstore.get(self.store, self.name))
            return bytes(_answered(found.bytes)), _version(found.meta)
        except FileNotFoundError:
            return None

    def write(self, content: bytes, over: Version | None) -> Version:
        """Create the object, or replace the version of it that was read.

        Args:
            content: the new bytes.
            over: the version to replace; None if there must be no object.

        Returns:
            The version that was written.

        Raises:
            Changed: there is another version, or no object any more; nothing was written. If the
                answer to a first attempt was lost, the other version may be this call's own.
            OSError: the store does not answer.
        """
        mode: Any = over or "create"
        try:
            put = _answered(lambda: obstore.put(self.store, self.name, content, mode=mode))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            raise Changed(one_line(error, 200)) from None
        return _version(put)


def _version(answer: Any) -> Version:
    """An answer's version, without empty keys, which obstore does not take back."""
    return {key: answer[key] for key in ("e_tag", "version") if answer.get(key) is not None}


def _answered(ask: Callable[[], T]) -> T:
    """The store's answer; if there is none, OSError is raised, as by the rest of the store."""
    try:
        return ask()
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        raise OSError(one_line(error, 200)) from None


def conditional_object(storage: Storage, name: str) -> ConditionalObject:
    """Address an object in a folder on an object store; no request is sent.

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
    """The bucket as pyarrow sees it: with the same region, endpoint and credentials."""
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
    """boto3's credentials, if it is installed: obstore alone reads no profiles of `~/.aws`."""
    if find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # boto3 found none; obstore has other sources
        return None
