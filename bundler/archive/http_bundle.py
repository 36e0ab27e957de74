"""A bundle that other hosts share by HTTP: read frame by frame, each checked as from a disk."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bundler.archive import frames, sums
from bundler.archive.bundle import OTHER_BYTES, Bundle
from bundler.archive.http_volume import OK, PAUSES, HttpHost, HttpVolume
from bundler.errors import DamagedError, FetchError, InputError, UntrustedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bundler.archive.kept_volumes import KeptVolumes
    from bundler.archive.layout import Frame
    from bundler.archive.trust import Trust

SCHEMES = ("http:/", "https:/")
PATIENCE = 900.0
"""Seconds for which a part is waited for that a host says it will have."""
BREATH = 0.5
"""Seconds before such a host is asked again."""


class SharedVolume:
    """A volume that several hosts may have, in the order in which they are asked."""

    def __init__(self, hosts: Sequence[HttpHost], name: str) -> None:
        """Know the addresses; nothing is asked yet."""
        self._readers = [(host, HttpVolume(host, name)) for host in hosts]
        self.path = self._readers[0][1].path

    def size(self) -> int:
        """Return the file's size, as the first host says that answers.

        :raises FetchError: none does.
        """
        *first, (_, last) = self._awake()
        for host, reader in first:
            try:
                return reader.size(())
            except FetchError:
                host.rest()
        return last.size()

    def read_at(
        self, offset: int, buffer: memoryview, is_right: Callable[[memoryview], bool] = lambda _: True
    ) -> None:
        """Fill the buffer from an offset, from the first host that has the right bytes.

        Where those that have it give wrong ones, the buffer holds these: the caller compares them as well.

        :raises FetchError: no host gives it, also after some tries.
        """
        pauses, began = iter(PAUSES), time.monotonic()
        while problems := self._round(offset, buffer, is_right):
            if "later" in problems and time.monotonic() - began < PATIENCE:
                time.sleep(BREATH)
            elif "wrong" in problems:
                return
            elif "gone" in problems and (pause := next(pauses, None)):
                time.sleep(pause)
            else:
                raise next(iter(problems.values()))

    def _round(
        self, offset: int, buffer: memoryview, is_right: Callable[[memoryview], bool]
    ) -> dict[str, FetchError]:
        """Ask the hosts in turn; return what kept each from giving the bytes, nothing once one did."""
        problems: dict[str, FetchError] = {}
        behind: list[HttpHost] = []
        for host, reader in self._awake():
            try:
                status = reader.ask(offset, buffer)
            except FetchError as problem:
                host.rest()
                problems["gone"] = problem
                continue
            if status == OK and is_right(buffer):
                host.answered()
                for one in behind:
                    one.rest()
                return {}
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                behind.append(host)
            word = {OK: "wrong", HTTPStatus.SERVICE_UNAVAILABLE: "later"}.get(status, "refused")
            problems[word] = reader.refusal(status)
        return problems

    def _awake(self) -> list[tuple[HttpHost, HttpVolume]]:
        """Return the hosts that may answer; all, where none answered lately."""
        return [pair for pair in self._readers if not pair[0].resting] or self._readers

    def forget(self, offset: int, size: int) -> None:
        """Do nothing: no cache here holds it."""

    def close(self) -> None:
        """Close this thread's connections."""
        for _, reader in self._readers:
            reader.close()


class SharedBundle(Bundle):
    """A bundle that other hosts share. What comes of it may be kept, for the next hosts."""

    kept: KeptVolumes | None = None

    def from_hosts(self, hosts: Sequence[HttpHost]) -> SharedBundle:
        """Read the volumes from hosts, asked in this order."""
        self.volumes |= {one.name: SharedVolume(hosts, one.name) for one in self.manifest.volumes}
        return self

    def read(self, frame: Frame, buffer: memoryview) -> None:
        """Fill the buffer from the first host that has the frame as the manifest says.

        :raises FetchError: no host gives it.
        :raises DamagedError: none has it as the manifest says.
        """
        if self.kept is not None and self.kept.read(frame, buffer):
            return
        volume = self.volumes[self.manifest.volumes[frame.volume].name]
        assert isinstance(volume, SharedVolume)  # from_hosts made all of them
        right = False

        def is_right(data: memoryview) -> bool:
            nonlocal right
            right = frames.digest(data) == frame.blake3
            return right

        volume.read_at(frame.offset, buffer, is_right)
        if not right:
            raise DamagedError(OTHER_BYTES)
        if self.kept is not None:
            self.kept.put(frame, buffer)

    def expect(self, numbers: Iterable[int]) -> None:
        """Let the next hosts wait for these frames, and for no others."""
        if self.kept is not None:
            self.kept.expect(numbers)


def address_of(place: Path) -> str | None:
    """Return the address that a word of the command line is, or ``None`` where it is a path.

    A path has lost one of two slashes by now.
    """
    text = str(place)
    scheme = next((one for one in SCHEMES if text.startswith(one)), None)
    return f"{scheme}/{text.removeprefix(scheme).strip('/')}/" if scheme else None


@contextmanager
def open_shared(addresses: Sequence[str], trust: Trust) -> Iterator[SharedBundle]:
    """Open a bundle that other hosts share.

    :param addresses: of the hosts, in the order in which they are asked.
    :param trust: what is asked of it; over a network that has to be something.
    :raises UntrustedError: no signature and no digest is asked for, or the bundle isn't what is.
    :raises FetchError: no host answers, or has a bundle there.
    """
    for address in addresses:
        if not urlsplit(address).hostname:
            raise UsageError(f"{address} names no host", hint="http://HOST:PORT/, as bundler share prints it")
    hosts = [HttpHost(address) for address in addresses]
    with TemporaryDirectory(prefix="bundler-shared-") as scratch:
        folder = Path(scratch)
        _bring_all(hosts, folder)
        with suppress(FileNotFoundError), SharedBundle.open([folder], trust) as bundle:
            if bundle.provenance.signature is None and not bundle.provenance.digest_given:
                raise UntrustedError(
                    "over a network a bundle is taken with a signature or a digest only",
                    where=addresses[0],
                    hint="--sha256 DIGEST, as pack printed it, or --allowed-signers FILE",
                )
            yield bundle.from_hosts(hosts)


def _bring_all(hosts: Sequence[HttpHost], folder: Path) -> None:
    """Fetch the small files, all from one host: the first that has them now, or after a while."""
    for number, host in enumerate([*hosts, *hosts]):
        pauses = PAUSES if number >= len(hosts) else ()
        try:
            for name, largest in (
                (sums.SUMS, sums.LARGEST_SUMS),
                (sums.MANIFEST, sums.LARGEST_MANIFEST),
                (sums.SIGNATURE, sums.LARGEST_SUMS),
            ):
                _bring(host, name, folder / name, largest, pauses, needed=name != sums.SIGNATURE)
        except FetchError:
            if number == 2 * len(hosts) - 1:
                raise
        else:
            return


def _bring(
    host: HttpHost, name: str, path: Path, largest: int, pauses: tuple[float, ...], *, needed: bool
) -> None:
    """Fetch one of the small files."""
    volume = HttpVolume(host, name)
    try:
        size = volume.size(pauses)
    except FetchError as problem:
        if not needed:
            return
        raise FetchError(
            f"no bundle is shared there: {problem.what}", where=host.address, hint=problem.hint
        ) from problem
    if size > largest:
        raise InputError(f"{name} is too long: {size} bytes", where=volume.path)
    data = bytearray(size)
    if size:
        volume.read_at(0, memoryview(data))
    volume.close()
    path.write_bytes(data)
