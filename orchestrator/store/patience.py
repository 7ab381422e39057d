"""If an object store does not serve a request: wait within a limit, and say so once. Pure.

Credentials expire while a study runs, and a store that is asked too much answers "slow down" for a
while. Both pass, so the request is sent again, with the credentials that there are by then. What a
process was never allowed before is soon taken for a mistake in the credentials or their rights.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Literal, TypeVar

from gdas.errors import one_line

PATIENCE_S = 300.0
"""How long an operation is retried while the store does not answer, in seconds."""
NEVER_ALLOWED_S = 20.0
"""The same for an operation that is denied, and that this process was never allowed."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
FINAL = re.compile("NO_?SUCH_?BUCKET", re.IGNORECASE)
"""Error texts of pyarrow and of obstore that no retry can change."""
DENIED = re.compile(
    "ACCESS_?DENIED|EXPIRED_?TOKEN|INVALID_?TOKEN|TOKEN_?REFRESH_?REQUIRED|INVALID_?ACCESS_?KEY"
    "|SIGNATURE_?DOES_?NOT_?MATCH|lacked the necessary privileges|Unauthenticated"
    # A request without a body in its answer, by which pyarrow asks for an object's size.
    r"|HTTP status 40[013]\b",
    re.IGNORECASE,
)
BUSY = re.compile(r"SLOW_?DOWN|THROTTL|TOO_?MANY_?REQUESTS|\b(429|503)\b", re.IGNORECASE)

Kind = Literal["read", "write"]
T = TypeVar("T")


def nothing() -> None:
    """Renew nothing."""


@dataclass
class Patience:
    """How one process waits for one bucket; all folders in it share this.

    Attributes:
        name: the bucket's address, for people.
        renew: opens the bucket again, with the credentials that there are now.
        served: the kinds of requests that the bucket has served to this process.
        announced: whether the present wait was announced.
    """

    name: str = ""
    renew: Callable[[], None] = nothing
    served: set[Kind] = field(default_factory=set)
    announced: bool = False
    announcing: threading.Lock = field(default_factory=threading.Lock)

    def tried(self, kind: Kind, action: Callable[[], T], patience: float | None = None) -> T:
        """Call `action`, and retry it while the store does not serve it.

        Args:
            patience: for how many seconds it is retried; `PATIENCE_S` if None.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the store does not serve it within that time; if it was waited for, the error
                says for how long, and the fix.
        """
        began, wait = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                answer = action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno is not None:
                    raise  # this machine's, such as a full disk: a store's errors have no number
                text, passed = str(error), time.monotonic() - began
                if FINAL.search(text) or passed + wait > self._limit(kind, text, patience):
                    if wait == FIRST_WAIT_S:
                        raise
                    raise OSError(self._given_up(text, passed)) from None
                self._announce(kind, text, patience)
                if DENIED.search(text):
                    self.renew()
            else:
                self.served.add(kind)
                self._say_again()
                return answer
            time.sleep(wait * SystemRandom().uniform(0.5, 1.0))  # many wait for the same
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _limit(self, kind: Kind, text: str, patience: float | None) -> float:
        limit = PATIENCE_S if patience is None else patience
        if DENIED.search(text) and kind not in self.served:
            return min(limit, NEVER_ALLOWED_S)
        return limit

    def _announce(self, kind: Kind, text: str, patience: float | None) -> None:
        with self.announcing:
            if not self.announced:
                limit = self._limit(kind, text, patience)
                _say(f"{self.name} {what(text)[0]}; waiting up to {limit:.0f} s for it")
            self.announced = True

    def _say_again(self) -> None:
        if self.announced:
            with self.announcing:
                if self.announced:
                    _say(f"{self.name} answers again")
                self.announced = False

    def _given_up(self, text: str, passed: float) -> str:
        problem, fix = what(text)
        return f"{self.name} {problem} and did for {passed:.0f} s; {fix}"


def what(text: str) -> tuple[str, str]:
    """What a store's error says, as the end of a sentence about the store, and the fix."""
    code = code_of(text)
    if DENIED.search(text):
        return (
            f"denies access ({code}; the credentials may have expired)",
            "renew the credentials, or have the right given, and run the same command again",
        )
    if BUSY.search(text):
        return (
            f"answers that it is asked too much ({code})",
            "run the same command again later, or fewer jobs side by side",
        )
    return f"does not answer ({code})", "run the same command again when it does"


def code_of(text: str) -> str:
    """The store's own word for an error, or the start of the text if there is none."""
    for pattern in (
        r"<Code>(\w+)</Code>",
        r"ExceptionName: (\w+)",
        r"AWS Error (?:UNKNOWN \()?((?:HTTP status )?\w+)",
        r"^(\w+): ",
    ):
        if found := re.search(pattern, text):
            return found[1]
    return one_line(text, 120)


def _say(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)
