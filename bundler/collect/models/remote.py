"""A model on a hub, and how its files are opened: addresses and words by the hub's own client, bytes by ours.

The clients' downloads aren't used. ModelScope's gives up after a budget of 3,600 s a file and hashes a file
again on each run; Hugging Face's doesn't check hashes and leaves a folder of its own beside the weights.
Neither can hand bytes to an archive while they arrive. So the clients list and sign in, and the files come by
:mod:`bundler.collect.transfer`.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from bundler.collect.faults import PASSING, Transient, UnreachableError, of_status, root_cause
from bundler.collect.network import Origin
from bundler.collect.transfer import AGAIN, Patience, Transfer
from bundler.errors import FetchError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import httpx2

    from bundler.collect.models.listing import ListedFile, Listing
    from bundler.collect.network import Network
    from bundler.errors import BundlerError

HUB_PATIENCE = Patience(attempts=8, first_wait=1.0, longest_wait=60.0, longest_retry_after=120.0)
"""Hubs throttle whoever takes hundreds of gigabytes: they are waited for longer than other hosts."""
LISTING_PATIENCE = Patience(attempts=4, first_wait=1.0)
"""With a listing: the user looks on."""
LISTING_SECONDS = 60.0
"""How long a hub may be silent while it lists."""


Fault = Literal["gated", "no revision", "no model", "no file", "refused", "failed"]


class HubClient(ABC):
    """A hub's own client: it knows addresses, tokens and the hub's errors."""

    kind: ClassVar[str]
    """``modelscope`` or ``huggingface``."""
    title: ClassVar[str]
    """The hub's name for people."""
    branch: ClassVar[str]
    """What a revision is where none is named."""
    tokens: ClassVar[tuple[str, ...]]
    """Variables that hold a token, the first of them for people."""
    login: ClassVar[str]
    """The command that keeps a token."""
    variable: ClassVar[str]
    """Names another endpoint."""
    pages: ClassVar[str] = ""
    """What comes before a model's id in the address of its page."""
    other: ClassVar[str]
    """The other hub's prefix in the word of ``--model``."""

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """The hub's address."""

    @abstractmethod
    def listing(self, model: str, revision: str | None) -> Listing:
        """Return all files at a revision, resolved to a commit.

        :raises FetchError: it failed, or wants a token.
        :raises UnknownNameError: no such model or revision.
        """

    @abstractmethod
    def address(self, model: str, revision: str | None, path: str) -> tuple[str, Mapping[str, str]]:
        """Return a file's address and the headers to ask for it with."""

    @abstractmethod
    def explained(self, answer: httpx2.Response, model: str, revision: str | None, path: str) -> BundlerError:
        """Return what an answer without the file means, where the same request won't succeed later."""

    @abstractmethod
    def near(self, model: str) -> Iterable[object]:
        """Return ids of models that are called alike; it may raise anything."""

    def revisions(self, model: str) -> Iterable[object]:
        """Return a model's branches and tags, where the hub tells them; it may raise anything."""
        return ()

    def check_tokens(self) -> None:
        """Refuse a token that no HTTP header can carry, before it is sent.

        :raises UsageError: naming the variable, and not its value.
        """
        for variable in self.tokens:
            if not re.fullmatch(r"[\x21-\x7e]*", os.environ.get(variable, "")):
                raise UsageError(
                    f"{variable} can't be a token: it has a line break, a blank or a letter outside ASCII",
                    hint=f"copy the token anew: export {variable}=… on one line",
                )

    def explain(
        self, fault: Fault, model: str, revision: str | None, path: str = "", said: str = ""
    ) -> BundlerError:
        """Return what to say of a fault.

        :param said: the hub's own words, its status code at least.
        """
        hint = AGAIN
        kind: type[FetchError | UnknownNameError] = FetchError
        if fault == "gated":
            what = f"{self.title} won't give {model} without a token that may read it ({said})"
            hint = f"accept the terms on {self.endpoint}{self.pages}/{model}, then `{self.login}`, "
            hint += f"or put the token into {self.tokens[0]}"
        elif fault == "no revision":
            kind, names = UnknownNameError, ", ".join(_suggested(lambda: self.revisions(model)))
            what = f"{self.title} has no revision {revision!r} of {model} "
            what += "(it may have been removed or rewritten)"
            hint = f"take one of {names}" if names else "name a branch, tag or commit that is there"
            hint += ", or leave the revision out"
        elif fault == "no model":
            kind, names = UnknownNameError, ", ".join(_suggested(lambda: self.near(model)))
            what = f"{self.title} has no model {model}" + (f"; there are {names}" if names else "")
            hint = f"check the id; a private model needs a token in {self.tokens[0]}, which may read it; "
            hint += f"--model {self.other}:OWNER/NAME asks the other hub"
        elif fault == "no file":
            what = f"{path} is no longer on {self.title} at this revision"
            hint = "run the same command again: it lists the files anew"
        elif fault == "refused":
            what = f"{self.title}, or a proxy before it, refuses {model} ({said})"
            hint = f"a token that may read it goes into {self.tokens[0]}, or `{self.login}`; "
            hint += "HTTPS_PROXY and NO_PROXY say which way is taken"
        else:
            what = f"{self.title} failed: {said}"
        where = f"{self.endpoint} {model}@{revision or self.branch} {path}".rstrip()
        return kind(what, where=where, hint=hint)

    def no_listing(self) -> FetchError:
        """Return what to say where a hub's answer is no listing."""
        return FetchError(
            f"{self.title} answered with something else than a listing: a page of a proxy or a portal, "
            "perhaps",
            where=self.endpoint,
            hint="open the address in a browser: does the network want a login? "
            "HTTPS_PROXY and NO_PROXY say which way is taken",
        )

    def no_size(self, path: str) -> FetchError:
        """Return what to say where a file is listed without its size: it could never be known to be whole."""
        return FetchError(
            f"{self.title} lists no size of {path}",
            where=self.endpoint,
            hint="run the same command again later, or take the model's other hub",
        )

    def unreachable(self, problem: Exception) -> UnreachableError:
        """Return what to say where the hub doesn't answer."""
        return UnreachableError(
            f"{self.title} can't be reached ({root_cause(problem)})",
            where=self.endpoint,
            hint=f"check the network and the proxy variables; {self.variable} names another endpoint; "
            "a model that was fetched before packs from its folder: --model weights/NAME",
        )


def _suggested(ask: Callable[[], Iterable[object]]) -> list[str]:
    try:
        return [str(one) for one in ask()][:8]
    except Exception:  # only a suggestion is lost
        return []


@dataclass(frozen=True)
class Remote:
    """A model on a hub at one revision, and how its files are read."""

    client: HubClient
    model: str
    revision: str | None
    network: Network
    patience: Patience = HUB_PATIENCE

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.client.kind}:{self.model}" + (f"@{self.revision}" if self.revision else "")

    def origin(self, path: str) -> Origin:
        """Return the one place of a file."""
        url, headers = self.client.address(self.model, self.revision, path)
        return Origin(
            self.network,
            url,
            headers,
            partial(self._refused, path=path),
            place=f"{self.where} {path}",
            title=self.client.title,
            mend="a proxy or mirror in between may alter it, or the hub's own listing is off: try later, "
            "or the model's other hub",
        )

    def transfer(self, file: ListedFile) -> Transfer:
        """Return how a file is read, from any place on or by parts."""
        return Transfer(
            file.path, [self.origin(file.path)], file.size, stop=self.network.stop, patience=self.patience
        )

    def _refused(self, answer: httpx2.Response, path: str) -> Exception:
        if answer.status_code in PASSING:
            return of_status(answer)
        redirected = answer.history and answer.url.host != answer.history[0].url.host
        if answer.status_code in (401, 403) and redirected:
            # The hub let us in and signed an address for a while: it gives a new one.
            return Transient(
                f"{answer.url.host} refused the address that {self.client.title} gave ({answer.status_code})"
            )
        return self.client.explained(answer, self.model, self.revision, path)
