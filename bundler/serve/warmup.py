"""The first chats of a server: they compile what the server's own warm-up doesn't, before anybody waits."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bundler.errors import ServeError
from bundler.model import Smoke
from bundler.serve.client import Client, NoAnswerError
from bundler.serve.smoke import ask, question, questions

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGE = "warming up with chats"
TOKENS = 32
"""Tokens of an answer: enough for each kernel to be run."""
LONG_WORDS = (1024, 256, 64)
"""Numbers in the long prompt, some 4 tokens each; fewer where the model takes no such long one."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What a server is asked before it counts as ready."""

    wanted: Smoke = field(default_factory=Smoke)
    """What may be asked of the model."""
    key: str | None = None
    """The key that the server asks for."""


class WarmUpRun:
    """Asks a server its first chats in a thread of its own, so that its end is seen meanwhile."""

    def __init__(self, url: str, served_name: str, wishes: WarmUp, timeout: float) -> None:
        """Begin to ask.

        :param timeout: seconds that an answer may take.
        """
        self.done = threading.Event()
        self.doing = ""
        """What is being asked: ``a long prompt, 2 of 5``."""
        self.broken: str | None = None
        """Why nothing more was asked: the server went."""
        self.problems: list[str] = []
        """What wasn't answered, and why."""
        self.seconds: list[tuple[str, float]] = []
        """What was asked, and how long the answer took."""
        self._client = Client(url, key=wishes.key, timeout=timeout)
        self._name, self._wanted = served_name, wishes.wanted
        threading.Thread(target=self._run, name="warm-up", daemon=True).start()

    def _run(self) -> None:
        chats = list(chats_of(self._wanted))
        for number, (name, bodies) in enumerate(chats, 1):
            self.doing = f"{name}, {number} of {len(chats)}"
            began = time.monotonic()
            try:
                problem = self._ask(bodies)
            except NoAnswerError as error:
                self.broken = error.what
                return
            if problem:
                self.problems.append(f"{name}: {problem}")
            self.seconds.append((name, time.monotonic() - began))
        self.done.set()

    def _ask(self, bodies: list[dict[str, Any]]) -> str | None:
        """Ask until one is answered, and return why none was."""
        problem = None
        for body in bodies:
            try:
                ask(self._client, self._name, body | {"max_tokens": TOKENS})
            except NoAnswerError:
                raise
            except ServeError as error:
                problem = error.what
            except (AttributeError, KeyError, TypeError, IndexError) as error:
                return f"an answer of another shape: {type(error).__name__}: {error}"
            else:
                return None
        return problem


def chats_of(wanted: Smoke) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield what is asked: a name, and bodies that are tried in turn until one is answered."""
    asked = questions(wanted)
    yield "a short prompt", [asked.pop("chat")]
    yield "a long prompt", [question(long_prompt(count), max_tokens=TOKENS) for count in LONG_WORDS]
    yield from ((name, [body]) for name, body in asked.items())


def long_prompt(words: int) -> str:
    """Return a text of so many words, none of it repeated, so that no cache answers for a part."""
    return "Which of these numbers is the largest? " + " ".join(str(number * 7919) for number in range(words))
