"""What a bundle says of its models, environments, lock and parity."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from tests.hostile.cases.table import (
    Make,
    case,
    change,
    either,
    in_room,
    lock_of,
    manifest,
    missing,
    put,
    seen,
    unlaunched,
)
from tests.hostile.workshop import GOOD, VOLUME, Workshop

if TYPE_CHECKING:
    from collections.abc import Callable


def model(*keys: str, value: Any) -> Make:
    return put("models", 0, *keys, value=value)


for name, value in (
    *(("name", name) for name in ("../m", "", "a/b", "-rf", "a\x1b[2J", "x" * 500)),
    *(("served-name", name) for name in ("--config=/etc/x", "-x", "a\0b", "a\nb", "x" * 10_000)),
    *(("aliases", words) for words in (None, "x", [7])),
):
    case(f"a model whose {name} is {str(value)[:20]!r}", model("spec", name, value=value))
for value in ("../weights", "/etc", "weights/none", "weights/m0/file-0", "", "."):
    case(f"a model at {value!r}", model("path", value=value))
case("licence files elsewhere", model("license_files", value=["/etc/passwd"]))
for flags in (
    {"--config": 1},
    {"tp-size 8 --config": "x"},
    {"": 1},
    {"tool-call-parser": "--config=x"},
    {"a": [1]},
):
    case(f"flags {flags}", model("spec", "launch", value={"flags": flags}))
for env in ({"A=B": "x"}, {"": "x"}, {"A": "a\0b"}, {"A": "\x1b[2J"}, {"A": 7}):
    case(f"variables {env}", model("spec", "launch", value={"env": env}))
for flags in (
    {"config": "/tmp/x"},
    {"load-format": "remote"},
    {"api-key": "k"},
    {"model-path": "/etc"},
    {"host": "10.0.0.9"},
):
    unlaunched(f"flags {flags}", model("spec", "launch", value={"flags": flags}))
for name in ("LD_PRELOAD", "PYTHONPATH", "PATH", "NCCL_NET_PLUGIN"):
    unlaunched(f"variable {name}", model("spec", "launch", value={"env": {name: "/tmp/x"}}))
for key, value in (
    *(("layers", number) for number in (-1, 2**62, 2**70, 1.5)),
    *(("kv_heads", number) for number in (0, -1, 2**62)),
    *(("attention_heads", number) for number in (0, -1)),
    *(("weight_bytes", number) for number in (-1, 2**62)),
    *(("parameters", number) for number in (-1, 2**62)),
    *(("context_length", number) for number in (-1, 2**62)),
    *(("license", words) for words in ("\x1b[2J\x07", "\u202e", "x" * 1_000_000)),
    *(("architecture", words) for words in ("\x9b2J", "a\nb")),
    ("remote_code", ["\x1b]0;x\x07"]),
):
    either(f"facts: {key} {str(value)[:20]!r}", model("facts", key, value=value))
for value in (
    [{"count": 0, "memory-gb": 80}],
    [{"count": -8, "memory-gb": -80}],
    [{"count": 2**62, "memory-gb": 2**62}],
):
    either(f"GPUs {value}", model("spec", "requires", value={"gpus": value}))
for value in (">=" + "9" * 5_000, "not a specifier", "\x1b[2J", ">=1" * 10_000):
    either(f"SGLang {value[:20]!r}", model("spec", "requires", value={"sglang": value}))
for value in ("\x1b[2J\x1b]0;title\x07", "a\nerror: something else", "x" * 2_000_000, "\u202e"):
    words = {"description": value, "requires": {"advice": value, "min-compute-capability": value}}
    told = manifest(lambda m, words=words: m["models"][0]["spec"].update(words))
    either(f"description {value[:20]!r}", told)
    either(f"revision {value[:20]!r}", model("revision", value=value))
    either(f"writer {value[:20]!r}", put("writer", value={"bundler": value, "libzstd": value}))
    either(f"rehearsal {value[:20]!r}", put("rehearsal", value={"status": "not rehearsed", "reason": value}))
    either(
        f"runtime {value[:20]!r}",
        put(
            "runtime",
            value={"source": value, "python": value, "bundler": value, "unpacked_bytes": 1, "inodes": 1},
        ),
    )

PLAIN = {"name": "default", "platform": "linux-64"}


def environment(lock: bytes | None = b"version: 7\nenvironments: {}\npackages: []\n", **values: Any) -> Make:
    """Add an environment, with its workspace's two files."""

    def make(one: Workshop) -> None:
        rows = [
            ("pixi.toml", "file", b"[workspace]\nname = 'x'\nchannels = []\nplatforms = ['linux-64']\n", "")
        ]
        if lock is not None:
            rows.append(("pixi.lock", "file", lock, ""))
        one.rebuild((*GOOD, *rows))
        one.manifest["environments"] = [PLAIN | values]
        one.seal()

    return make


PACKAGE = ["wheel", "x", "1", "", "pixi.toml", 7, "0" * 64, 1, 1]
for values in (
    *({"name": name} for name in ("../x", "", "a/b", "-x", "a\x1b")),
    {"packages": [[*PACKAGE[:4], "/etc/passwd", *PACKAGE[5:]]]},
    {"packages": [[*PACKAGE[:4], "weights", *PACKAGE[5:]]]},
    {"packages": [[*PACKAGE[:7], -1, 1]]},
    {"packages": [[*PACKAGE[:7], 2**61, 1]]},
    {"packages": [[*PACKAGE[:7], 1, -1]]},
    {"packages": [["sdist", *PACKAGE[1:]]]},
):
    case(f"environment {str(values)[:60]}", environment(**values))
for values in (
    {"packages": [[*PACKAGE[:7], 2**59, 1]]},
    *({"cuda": word} for word in ("9" * 5_000, "\u00b2", "\x1b[2J", "12.", "-1", "x" * 1_000_000)),
    *({"glibc": word} for word in ("9" * 5_000, "\u00b2.1", "\x1b[2J", "", "2.x")),
    *(
        {"torch": word, "sglang": word, "python": word}
        for word in ("9" * 5_000, "\x1b[2J", "", "x" * 1_000_000)
    ),
    *({"platform": word} for word in ("\x1b[2J", "../x", "x" * 1_000_000)),
    {"aliases": ["\x1b[2J", "../x"]},
    {"imports": ["os; import sys", "\x1b[2J", "../x"]},
):
    in_room(f"environment {str(values)[:60]}", environment(**values))
for name, data in {
    "empty": b"",
    "not UTF-8": b"\xff\xfe\xfa",
    "nested": b"[" * 200_000,
    "indented without end": b"".join(b" " * number + b"a:\n" for number in range(2_000)),
    "a version of 5,000 digits": b"version: '" + b"6" * 5_000 + b"'\n",
    "a version of another script": "version: '\u00b2'\n".encode(),
    "laughing": b"a: &a [x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c,*%c]\n" % (n + 1, n + 1, n, n, n) for n in range(97, 120)),
    "an alias of itself": b"version: 7\nenvironments: &a {default: *a}\n",
    "a tag": b"!!python/object/apply:os.system ['touch canary']\n",
    "a package elsewhere": b"version: 7\nenvironments: {default: {channels: [{url: 'file:///etc/'}], "
    b"packages: {linux-64: [{pypi: '/etc/passwd'}]}}}\n"
    b"packages: [{pypi: '/etc/passwd', name: x, version: '1'}]\n",
    "NULs": b"version: 7\0",
}.items():
    lock_of(f"lock: {name}", environment(data))
lock_of("no lock", environment(None))

for values in (
    *({"data": number} for number in (0, -1, 256, 2**62)),
    *({"parity": number} for number in (0, -1, 256, 2**62)),
    *({"stripe": number} for number in (0, -1, 2**20 + 1, 2**62)),
    *(
        {"files": [[name, 1]]}
        for name in ("../x", "/etc/passwd", "manifest.json", "SHA256SUMS", VOLUME, "", "a\0")
    ),
    {"files": [["a", -1]]},
    {"files": [["a", 2**61]]},
    {"files": [["a", 1], ["a", 1]]},
):
    case(f"parity {values}", lambda one, v=values: change(one, lambda m: m["parity"].update(v)))
seen("parity of a file that isn't there", manifest(lambda m: m["parity"]["files"].append(["zz", 7])))
seen("parity of 1 EB", manifest(lambda m: m["parity"]["files"].append(["zz", 2**59])))
seen(
    "parity of 100,000 files",
    manifest(lambda m: m["parity"].update(files=[[f"f{n}", 1] for n in range(100_000)])),
)


def parity_file(alter: Callable[[bytearray], object]) -> Make:
    """Change the parity volume, and sign what came of it; then lose a volume, so that it is asked."""

    def make(one: Workshop) -> None:
        path = one.bundle / "parity-00001.zfec"
        data = bytearray(path.read_bytes())
        alter(data)
        path.write_bytes(data)
        one.sign()
        (one.bundle / "data-00002.tar.zst").unlink()

    return make


def number_at(place: int, value: int) -> Make:
    return parity_file(lambda data: data.__setitem__(slice(place, place + 8), struct.pack("<Q", value)))


for place in (8, 16, 24):
    for value in (0, 2**31, 2**62, 2**64 - 1):
        missing(f"a parity volume with {value} at {place}", number_at(place, value))
missing("an empty parity volume", parity_file(bytearray.clear))
missing("a parity volume of its magic alone", parity_file(lambda data: data.__delitem__(slice(8, None))))
missing("a parity volume cut short", parity_file(lambda data: data.__delitem__(slice(len(data) // 2, None))))
