"""Manifests: their numbers, their words, and what is no manifest at all."""

from __future__ import annotations

from tests.hostile.cases.table import Make, bad_input, case, manifest, put, seen, sparse


def text(raw: bytes) -> Make:
    return lambda one: one.seal(raw)


for value in (0, -1, 2, 2**40, 2**64, 1.5, "1", None, True, [1]):
    case(f"format {value!r}", put("format", value=value))
for value in (["delta"], ["teleport"], ["\x1b[2J"], ["x" * 1_000_000], "delta", [None]):
    case(f"requires {str(value)[:20]}", put("requires", value=value))
for value in ("../x", "", ".", "a/b", "a b", "x" * 200, "a\x1b[2J", "-rf", None, 7):
    case(f"name {str(value)[:20]!r}", put("name", value=value))
for value in (-1, 0, 512, 2**61, 2**64, "1", 10**30, 1e308):
    case(f"stream_size {value}", put("stream_size", value=value))
for key in ("format", "name", "writer", "tree", "frames", "volumes"):
    case(f"no {key}", manifest(lambda m, key=key: m.pop(key)))
case("an unknown key", put("evil", value=1))
case("an unknown key in a volume", put("volumes", 0, "evil", value=1))
for name, value in (
    *(
        ("name", name)
        for name in ("../data-00001.tar.zst", "/dev/zero", "data-00002.tar.zst", "", "manifest.json", "\0")
    ),
    *(("size", size) for size in (0, -1, 1, 2**40, 2**64)),
    *(("frames", count) for count in (0, -1, 10**6, 2**64)),
    *(("sha256", digest) for digest in ("", "0" * 63, "x" * 64)),
):
    case(f"a volume whose {name} is {value!r}", put("volumes", 0, name, value=value))
seen("a volume's digest is another's", put("volumes", 0, "sha256", value="0" * 64))
case("no volumes", put("volumes", value=[]))
case("a volume twice", manifest(lambda m: m["volumes"].append(m["volumes"][-1])))
case("100,000 volumes", manifest(lambda m: m.update(volumes=[m["volumes"][0]] * 100_000)))
for column, value in (
    *(("raw", size) for size in (0, -1, 1, 2**24 + 1, 2**40, 2**64, 1.5, None)),
    *(("stored", size) for size in (0, -1, 8, 2**40, 2**64)),
    *(("blake3", digest) for digest in ("", "F" * 64, "0" * 65, None)),
):
    case(f"a frame whose {column} is {value!r}", put("frames", column, 0, value=value))
case("columns of other lengths", manifest(lambda m: m["frames"]["raw"].pop()))
case(
    "a million frames of one byte",
    manifest(lambda m: m["frames"].update(raw=[1] * 10**6, stored=[9] * 10**6, blake3=["0" * 64] * 10**6)),
)
case("a filter", put("frames", "filter", value=["shuffle"]))
case("another digest", put("digests", value={"file": "md5"}))
case("a base", put("base", value={"name": "b", "manifest_sha256": "0" * 64}))
for name, raw in {
    "empty": b"",
    "not UTF-8": b'{"format":1,"name":"\xff"}',
    "UTF-16": '{"format":1}'.encode("utf-16"),
    "a BOM": b'\xef\xbb\xbf{"format":1}',
    "NULs": bytes(1000),
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "nesting in an unknown key": b'{"format":1,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "5,000 digits": b'{"format":' + b"9" * 5_000 + b"}",
    "5,000 digits deep": b'{"format":1,"stream_size":' + b"9" * 5_000 + b"}",
    "an exponent": b'{"format":1e999999999}',
    "NaN": b'{"format":NaN}',
    "a list": b"[]",
    "a word": b'"manifest"',
    "HTML": b"<!doctype html><title>Sign in</title>",
    "cut short": b'{"format":1,"name":"little","wri',
    "control characters in an unknown key": b'{"format":1,"\\u001b[2J":1}',
    "a key of 5 MB": b'{"format":1,"' + b"x" * 5_000_000 + b'":1}',
    "a number with dots": b'{"format":1.0.0}',
    "lone surrogates": b'{"format":1,"name":"\\ud800"}',
}.items():
    case(f"manifest: {name}", text(raw))
case(
    "manifest: something behind it", lambda one: one.seal((one.bundle / "manifest.json").read_bytes() + b"{}")
)
case("manifest: 20 MB of blanks", lambda one: one.seal(b" " * 20_000_000))


bad_input("a manifest of 900 MB", sparse("manifest.json", 900_000_000))
bad_input("a manifest of 1 TB", sparse("manifest.json", 2**40))
