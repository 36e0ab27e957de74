"""Lists of sums that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hostile.cases.table import Make, bad_input, case, seen, sound, sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.workshop import Workshop


def sums(alter: Callable[[bytes], bytes]) -> Make:
    def make(one: Workshop) -> None:
        path = one.bundle / "SHA256SUMS"
        path.write_bytes(alter(path.read_bytes()))

    return make


ZERO = b"0" * 64
LISTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a blank line": lambda data: data + b"\n",
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "tabs": lambda data: data.replace(b"  ", b"\t"),
    "upper case": lambda data: data.upper(),
    "63 digits": lambda data: data[1:],
    "a name twice": lambda data: data + data,
    "another digest first": lambda data: ZERO + b"  manifest.json\n" + data,
    "no manifest": lambda data: b"".join(line for line in data.splitlines(True) if b"manifest" not in line),
    "a folder": lambda data: data + ZERO + b"  ../x\n",
    "an absolute name": lambda data: data + ZERO + b"  /etc/passwd\n",
    "no name": lambda data: data + ZERO + b"  \n",
    "a hidden name": lambda data: data + ZERO + b"  .x\n",
    "an option": lambda data: data + ZERO + b"  -rf\n",
    "an escape": lambda data: data + ZERO + b"  \x1b[2J\n",
    "NULs": lambda data: data + bytes(100),
    "no UTF-8": lambda data: data + b"\xff\xff",
    "a name of 5 MB": lambda data: data + ZERO + b"  " + b"x" * 5_000_000 + b"\n",
    "a line of 10 MB": lambda data: b"0" * 10_000_000,
    "as BSD writes it": lambda data: b"SHA256 (manifest.json) = " + ZERO + b"\n",
    "HTML": lambda data: b"<!doctype html>",
    "other line ends within": lambda data: data.replace(b"\n", b"\x0b", 1),
}
for name, alter in LISTS.items():
    case(f"sums: {name}", sums(alter))
sound("sums: no line end", sums(lambda data: data[:-1]))
sound("sums: binary marks", sums(lambda data: data.replace(b"  ", b" *")))
seen("sums: a file that isn't there", sums(lambda data: data + ZERO + b"  zz\n"))
seen(
    "sums: 20,000 lines",
    sums(lambda data: data + b"".join(b"%064d  f%d\n" % (n, n) for n in range(20_000))),
)
seen("sums: a volume too many", sums(lambda data: data + ZERO + b"  data-09999.tar.zst\n"))
bad_input("sums of 300 MB", sparse("SHA256SUMS", 300_000_000))
bad_input("sums of 1 TB", sparse("SHA256SUMS", 2**40))
