"""Asking a server: HTTP from the standard library, since the GPU host may have no other."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.errors import ServeError

ANSWER_SECONDS = 300.0
"""How long one answer may take: the first of its kind may compile kernels."""


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without proxies: an air-gapped host's proxy variables would lead away from the host itself."""


class NoAnswerError(ServeError):
    """Nothing came back: the server isn't there, or went."""


class Client:
    """A client of one server."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = ANSWER_SECONDS) -> None:
        """Keep the address, ``http://HOST:PORT``, the API key and the seconds an answer may take."""
        self.url, self._key, self._timeout = url.rstrip("/"), key, timeout

    def get(self, path: str) -> Any:
        """Return the JSON of a GET, or raise ServeError: no answer, no success, or no JSON."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON that answers a POST of JSON; raises as :meth:`get` does."""
        request = urllib.request.Request(self.url + path, data=msgspec.json.encode(body))
        request.add_header("Content-Type", "application/json")
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        try:
            with OPENER.open(request, timeout=self._timeout) as answer:
                return msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as problem:
            said = problem.read(500).decode(errors="replace").strip()
            hint = "give the key: --api-key-file FILE" if problem.code in (401, 403) else None
            raise ServeError(
                f"the server answered {problem.code}: {said or problem.reason}",
                where=request.full_url,
                hint=hint,
            ) from problem
        except BROKEN_JSON as problem:
            raise ServeError("the server's answer is no JSON", where=request.full_url) from problem
        except (OSError, http.client.HTTPException) as problem:
            reason = getattr(problem, "reason", None) or problem
            raise NoAnswerError(
                f"no answer from the server: {reason}",
                where=request.full_url,
                hint="does it run? bundler status",
            ) from problem
