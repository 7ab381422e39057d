"""Refuse addresses that hold a password: an address is recorded, printed and tracked. Pure."""

from __future__ import annotations

import re

from gdas.errors import InputError

WEB = re.compile(r"https?://[^/?#]*@", re.I)
OTHER = re.compile(r"(?!https?:)[a-z0-9+.-]+://[^/@]*:.*@", re.I)  # a secret may have slashes
SECRET = r"password|passwd|pwd|pass|passphrase|token|secret|api_?key|access_?key|signature|sig"
ASKED = re.compile(rf"[a-z0-9+.-]+://[^?]*\?(.*&)?[a-z_-]*({SECRET})=[^&]", re.I)
"""A secret behind the question mark, as databases and signed addresses have it."""
STORES = ("s3", "gs", "gcs", "abfs", "abfss")
STORES_WAY = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"


def refuse_credentials(what: str, address: object) -> None:
    """Raise InputError if an address has a user's password or key in it; it is not repeated.

    Args:
        what: the option or setting that has the address.
        address: anything else than an address is fine.
    """
    text = str(address or "")
    asked = ASKED.match(text)
    if not WEB.match(text) and not OTHER.match(text) and not asked:
        return
    instead, scheme = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD", text.split("://")[0]
    if not scheme.lower().startswith("http"):
        instead = "what the database's own client reads, such as PGPASSWORD,"
    if scheme.lower() in STORES:
        instead = STORES_WAY
    hidden = "...?..." if asked else "...@..."
    raise InputError(
        f"{what}={scheme}://{hidden}: has a password in it, and addresses are recorded and shown; "
        f"leave it out and set {instead} in the environment"
    )
