"""Compare and swap for one object on an object store. Pure.

pyarrow's file systems offer no conditional write, so this module uses obstore. An object is created
only if there is none (`If-None-Match`), and replaced only if it is still the version that was read
(`If-Match` with its ETag; on Google Cloud Storage, its generation). The store decides this in one
step, so exactly one of any number of writers succeeds, however slow the others are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from gdas.errors import InputError, one_line
from orchestrator.store.bucket import ObjectStore, answered, open_bucket
from orchestrator.store.storage import Storage

Version = dict[str, str]
"""An object's version in obstore's form: an ETag or a generation."""


class Changed(Exception):
    """Another process created, replaced or removed the object since it was read."""


@dataclass(frozen=True)
class ConditionalObject:
    """An object that is replaced only if the writer has read its current version."""

    store: ObjectStore
    name: str

    def read(self) -> tuple[bytes, Version] | None:
        """Read the content and its version; None if there is no object.

        Raises:
            OSError: the store does not answer.
        """
        try:
            found = answered(lambda: obstore.get(self.store, self.name))
            return bytes(answered(found.bytes)), _version(found.meta)
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
            put = answered(lambda: obstore.put(self.store, self.name, content, mode=mode))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            raise Changed(one_line(error, 200)) from None
        return _version(put)


def _version(answer: Any) -> Version:
    """An answer's version, without empty keys, which obstore does not take back."""
    return {key: answer[key] for key in ("e_tag", "version") if answer.get(key) is not None}


def conditional_object(storage: Storage, name: str) -> ConditionalObject:
    """Address an object in a folder on an object store; no request is sent.

    Raises:
        InputError: this kind of store is not known to write conditionally.
    """
    bucket, _, prefix = storage.root.partition("/")
    region = getattr(storage.files, "region", None)
    try:
        return ConditionalObject(open_bucket(storage.address, bucket, region, prefix), name)
    except InputError as error:
        raise InputError(f"--out {error}") from None
