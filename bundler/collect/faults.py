"""What goes wrong with a request: what passes, what doesn't, and what the user can do about it."""

from __future__ import annotations

import email.utils
import re
import time

import httpx2

from bundler.errors import FetchError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may succeed later."""
FIXES = {
    401: "name the host's user and password in ~/.netrc, or: rattler auth login HOST",
    403: "the host refuses: name its user and password in ~/.netrc, or a mirror in pixi's [mirrors]",
    404: "it is no longer there: name a mirror that has it in pixi's [mirrors], or lock again: pixi lock",
    407: "the proxy asks for credentials: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    410: "it was withdrawn: lock again: pixi lock",
    451: "it was withdrawn: name a mirror that has it in pixi's [mirrors]",
}
NETWORK_FIX = "is there a network here? HTTPS_PROXY names a proxy; pixi's [mirrors] names other hosts"


class Stopped(Exception):  # noqa: N818
    """The download was interrupted from outside."""


class NoRanges(Exception):  # noqa: N818
    """The host gives a file from its beginning only."""


class Transient(Exception):  # noqa: N818
    """A failure that may pass."""

    def __init__(
        self, what: str, hint: str = NETWORK_FIX, wait: float | None = None, *, tries: int | None = None
    ) -> None:
        """Keep the message, the seconds that the host asks to wait, and the tries before it is given up."""
        super().__init__(what)
        self.what, self.hint, self.wait, self.tries = what, hint, wait, tries


class BeginAnew(Transient):
    """The host has nothing that goes on where the last attempt ended."""


class WrongLength(Transient):
    """The host's answer has another length than was promised."""


class TooLong(BeginAnew, WrongLength):
    """The host sent more bytes than were promised: none of them is the file's."""


class Permanent(Exception):  # noqa: N818
    """A failure that doesn't pass."""

    def __init__(self, what: str, hint: str, *, exhausted: bool = False, damaged: bool = False) -> None:
        """Keep the message, and whether it is a passing failure that didn't pass, or wrong bytes."""
        super().__init__(what)
        self.what, self.hint, self.exhausted, self.damaged = what, hint, exhausted, damaged


class UnreachableError(FetchError):
    """Every address failed again and again: other files of these hosts would fare the same."""


def of_status(response: httpx2.Response) -> Transient | Permanent:
    """Return the fault that a status code means."""
    code = response.status_code
    what = f"the host answered {code} {response.reason_phrase}".rstrip()
    if code in PASSING:
        return Transient(what, wait=retry_after(response))
    return Permanent(what, FIXES.get(code, "try another mirror: pixi's [mirrors]"))


def of_exception(problem: httpx2.HTTPError | httpx2.InvalidURL, url: str) -> Transient | Permanent:
    """Return the fault that an exception of the client means."""
    text = f"{type(problem).__name__}: {problem}".rstrip(": ")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Permanent(
            f"its certificate isn't trusted ({problem})",
            "SSL_CERT_FILE names a file with your network's certificates",
        )
    if isinstance(problem, httpx2.ProxyError):
        return Transient(f"the proxy failed ({problem})", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if isinstance(problem, httpx2.TransportError) and not isinstance(problem, httpx2.UnsupportedProtocol):
        return Transient(_plain(problem, text))
    return Permanent(f"{text} ({url})", "check the address, and pixi's [mirrors]")


def _plain(problem: httpx2.TransportError, text: str) -> str:
    if isinstance(problem, httpx2.ConnectTimeout):
        return "the host doesn't answer"
    if isinstance(problem, httpx2.TimeoutException):
        return "the host stopped sending"
    if isinstance(problem, httpx2.ConnectError):
        return f"the host can't be reached ({problem})"
    if isinstance(problem, httpx2.RemoteProtocolError | httpx2.ReadError):
        return "the connection broke"
    return text


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a number, or a date."""
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def root_cause(problem: BaseException) -> str:
    """Return what lies at the bottom of a client's error, in a few words: ``Connection refused``."""
    cause: BaseException = problem
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    text = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0]
    return text if len(text) <= 120 else type(cause).__name__
