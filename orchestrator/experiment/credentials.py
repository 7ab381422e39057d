"""Refuse addresses that hold a password: an address is recorded, printed and tracked. Pure."""

from __future__ import annotations

import re

from gdas.errors import InputError

WEB = re.compile(r"https?://[^/?#]*@", re.I)
OTHER = re.compile(r"(?!https?:)[a-z0-9+.-]+://[^/@]*:.*@", re.I)  # a secret may have slashes
STORES = ("s3", "gs", "gcs", "abfs", "abfss")
STORES_WAY = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"


def refuse_credentials(what: str, address: object) -> None:
    """Raise InputError if an address has a user's password or key in it; it is not repeated.

    Args:
        what: the option or setting that has the address.
        address: anything else than an address is fine.
    """
    text = str(address or "")
    if not WEB.match(text) and not OTHER.match(text):
        return
    instead, scheme = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD", text.split("://")[0]
    if scheme.lower() in STORES:
        instead = STORES_WAY
    raise InputError(
        f"{what}={scheme}://...@...: has a password in it, and addresses are recorded and shown; "
        f"leave it out and set {instead} in the environment"
    )
