"""Whether a server answers: ``/health`` 200."""

from __future__ import annotations

import http.client
import threading
import urllib.error

from bundler.serve.client import OPENER

HEALTH_SECONDS = 25.0
"""How long one answer may take: a ready server generates a token before it answers, SGLang gives it 20 s."""


def health(url: str, timeout: float = HEALTH_SECONDS) -> str:
    """Ask ``/health`` once: ``ready``, ``starting`` (503), ``refused``, ``silent`` or ``status N``."""
    try:
        with OPENER.open(f"{url}/health", timeout=timeout) as answer:
            return "ready" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as problem:
        return "starting" if problem.code == 503 else f"status {problem.code}"
    except TimeoutError:
        return "silent"
    except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
        reason = getattr(problem, "reason", problem)
        return "silent" if isinstance(reason, TimeoutError) else "refused"


class HealthProbe:
    """Asks ``/health`` again and again in a thread of its own, so that a slow answer delays nothing else."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.ready = threading.Event()
        self.last = "refused"
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.last = health(self._url)
            if self.last == "ready":
                self.ready.set()
                return
            self._stop.wait(0.5)

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
