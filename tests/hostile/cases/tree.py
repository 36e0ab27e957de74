"""Trees: paths, links, kinds and numbers of single entries."""

from __future__ import annotations

from typing import Any

from tests.hostile.cases.table import REFUSED, SOUND, Make, case, change, either, seen, sound
from tests.hostile.workshop import GOOD, Row, Workshop


def tree(*rows: Row) -> Make:
    return lambda one: one.rebuild((*GOOD, *rows))


def file(path: str) -> Row:
    return (path, "file", b"hostile", "")


def link(path: str, target: str) -> Row:
    return (path, "link", b"", target)


def folder(path: str) -> Row:
    return (path, "dir", b"", "")


for path in (
    *(
        "/etc/passwd",
        "//x",
        "..",
        "../canary/x",
        "weights/../../canary/x",
        "weights/..",
        "./a",
        "weights/./b",
    ),
    *("weights//b", "weights/b/", "", ".", "weights/\0", "weights/a\nb", "weights/\rb", "weights/\x1b[2Jb"),
    *(
        "weights/\x9b2J",
        "weights/\x7f",
        "weights/\u202egnp.x",
        "weights/\u2066x",
        "weights/\u2028x",
        "weights/\u0085",
    ),
    *(
        "weights/\u200fx",
        "weights/" + "x" * 256,
        "weights/" + "模" * 86,
        "weights/a",
        "weights/a/b",
        "weights/l/b",
    ),
    *(
        "nowhere/b",
        ".bundler",
        ".bundler/receipt.json",
        ".BUNDLER",
        ".Bundler/x",
        ".pixi",
        ".PIXI/config.toml",
        "bin",
    ),
    *("bin/bundler", "Bin", "runtime", "RUNTIME/x", "weights"),
):
    case(f"path {path[:40]!r}", tree(file(path)))
case("path of 5 MB", tree(file("weights/" + "x" * 5_000_000)))
case("path of 5 MB in parts", tree(file("weights/" + "x/" * 2_500_000 + "x")))
case("path of 5 MB of control characters", tree(file("weights/" + "\x1b" * 5_000_000)))
for twins in (
    ("weights/b", "weights/B"),
    ("weights/\u00e9", "weights/e\u0301"),
    ("weights/\uff41", "weights/\u0430"),
):
    # Two names on a file system that tells them apart; one that doesn't is refused by name.
    sound(f"twins {twins!r}", tree(*map(file, twins)))
sound("a name of backslashes", tree(file("weights/..\\..\\canary")))
sound("names of another system", tree(*map(file, ("CON", "weights/a:b", "weights/c. "))))

for target in (
    *(
        "/etc/passwd",
        "//etc",
        "",
        ".",
        "..",
        "../..",
        "../../canary/x",
        "../../../../../../etc/passwd",
        "a/../../x",
    ),
    *(
        "./a",
        "a//b",
        "a/",
        "\0",
        "a\x1b[2J",
        "a\nb",
        "\u202ea",
        "x" * 5_000_000,
        "../.bundler",
        "../.BUNDLER/receipt.json",
    ),
    *("../bin/bundler", "../.pixi/envs", "../runtime"),
):
    expected = SOUND if target == ".." else REFUSED
    case(f"link to {target[:40]!r}", tree(link("weights/k", target)), unpack=expected, verify=expected)
for links in (
    {"weights/up": "..", "weights/k": "up/.bundler/receipt.json"},
    {"weights/up": "..", "weights/k": "up/bin/bundler"},
    {"weights/k": "up/.pixi", "weights/up": ".."},
    {"weights/up": "..", "weights/over": "up/weights/up", "weights/k": "over/.bundler"},
    {"weights/m0/back": "../..", "weights/k": "m0/back/.bundler"},
    {"weights/m0/top": "../..", "weights/m0/out": "top/weights/m0/top/.bundler/bundles"},
):
    case(f"links over links {links}", tree(*(link(*pair) for pair in links.items())))
for links in (
    {"weights/k": "k"},
    {"weights/k": "j", "weights/j": "k"},
    {f"weights/k{number}": f"k{number + 1}" for number in range(60)},
):
    sound(f"links in a circle {str(links)[:40]}", tree(*(link(*pair) for pair in links.items())))
case("a file over a link to a folder", tree(link("weights/k", "m0"), file("weights/k/x")))
case("a folder over a link", tree(link("weights/k", "m0"), folder("weights/k")))
case("a link over a folder", tree(folder("weights/k"), link("weights/k", "..")))
case("a file twice with other content", tree(file("weights/b"), ("weights/b", "file", b"other", "")))


def columns(row: int, **values: Any) -> Make:
    """Let an entry of the tree say something else; offsets stay."""
    places = {"path": 0, "kind": 1, "mode": 2, "size": 3, "sha256": 4, "offset": 5, "target": 6}

    def make(one: Workshop) -> None:
        one.rebuild()
        for name, value in values.items():
            one.manifest["tree"][row][places[name]] = value
        one.seal()

    return make


for name, value in (
    *(("mode", mode) for mode in (0o4755, 0o2755, 0o1755, 0o777, 0o666, 0, -1, 2**40, True, "0644", 420.5)),
    *(
        ("kind", kind)
        for kind in ("fifo", "char", "block", "hardlink", "socket", "FILE", "", None, "dir", "link")
    ),
    *(("size", size) for size in (-1, 0, 12, 14, 2**40, 2**59, 2**61, 2**63, 2**64, 13.0, "13", None)),
    *(("offset", offset) for offset in (-2, -1, 0, 512, 2**40, 2**61, 2**64, 1e300, None)),
    *(("sha256", text) for text in ("", "0" * 64, "0" * 63, "F" * 64, "x" * 5_000_000, None, "\x1b[2J" * 16)),
    *(("target", text) for text in ("a", "/etc/passwd", None, 7)),
    *(("path", text) for text in (None, 7, ["weights"], "\ud800")),
):
    if (name, value) != ("size", 13):
        add = seen if value == "0" * 64 else case
        add(f"a file whose {name} is {str(value)[:20]!r}", columns(1, **{name: value}))
case("a row of another length", lambda one: change(one, lambda m: m["tree"].append(["weights/x", "file"])))
case("a row that is an object", lambda one: change(one, lambda m: m["tree"].append({"path": "weights/x"})))
either("a row that goes on and on", lambda one: change(one, lambda m: m["tree"][1].extend([0] * 100_000)))
