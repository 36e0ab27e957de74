"""The transfer sheet: all of a real bundle is on it, nothing of a hostile one is alive on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import segno

from bundler.archive.bundle import Bundle
from bundler.report.inventory import take_inventory
from bundler.report.sheet import render_sheet
from tests.report.make import browse, conda, make_bundle, model_of, wheel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.cli.conftest import Bundler

ATTACK = (
    "\"'><script>document.title='OWNED'</script><img src=x onerror=\"document.title='OWNED'\"></style>{{7*7}}"
)
MADE_OF = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "div", "p"),
    *("h1", "h2", "h3", "dl", "dt", "dd", "ul", "li", "b", "span", "code"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "g", "rect", "path", "text"),
}
"""Every element that the page may have."""


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.titles.append(data.strip())
            self._open.append("")
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sheet_of(folders: Sequence[Path]) -> str:
    with Bundle.open(folders) as bundle:
        return render_sheet(take_inventory(bundle), "2026-01-02 03:04 UTC")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the sheet of a bundle whose every text is an attack."""
    packages = [
        wheel("evil", "1.0", f"License: {ATTACK}", f"Home-page: javascript:{ATTACK}", f"Summary: {ATTACK}"),
        conda("evil-conda", "1", {"license": ATTACK}, {"home": ATTACK, "summary": ATTACK}),
    ]
    words = ("description", "flag", "env", "origin", "revision", "architecture")
    model = model_of(license=ATTACK, **dict.fromkeys(words, ATTACK))
    return sheet_of(make_bundle(tmp_path_factory.mktemp("hostile"), packages, model=model))


def test_every_section_of_a_real_bundle(bundler: Bundler, packed: Path, tmp_path: Path) -> None:
    done = bundler("report", packed, "-o", "sheet.html", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sheet.html\n"
    page = Page((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert page.titles == [
        "What was checked, and what was not",
        "What is in it",
        "Licences to look at",
        "What the target needs",
        "Model tiny-glm4-moe",
        "Packages of the environment default",
        "Packages of the runtime, which runs bundler on the target",
        "Volumes and other files",
        "Handing over",
    ]
    manifest = json.loads((packed / "manifest.json").read_text(encoding="utf-8"))
    for row in manifest["environments"][0]["packages"]:
        assert row[1] in page.text and row[2] in page.text and row[6] in page.text
    for volume in manifest["volumes"]:
        assert volume["name"] in page.text and volume["sha256"] in page.text
        assert f"{volume['size']:,}" in page.text
    for path, _, _, _, digest, *_ in manifest["tree"]:
        assert digest in page.text or not path.startswith("weights/")
    assert "MPL-2.0 AND MIT" in page.text, "tqdm's licence, out of its own METADATA"
    assert "PSF-2.0" in page.text, "python's, out of its conda package"
    assert "--tool-call-parser glm47" in page.text
    assert "SGLANG_IS_FLASHINFER_AVAILABLE=false" in page.text
    assert "✓ yes every byte compared just now" in page.text
    assert "✓ yes rehearsal installed by native" in page.text
    assert "✗ no signature there is no SHA256SUMS.sig" in page.text
    assert page.text.count("signature") >= 3
    digest = hashlib.sha256((packed / "SHA256SUMS").read_bytes()).hexdigest()
    assert page.text.count(" ".join(digest[at : at + 8] for at in range(0, 64, 8))) == 2
    boxes = [one for tag, one in page.elements if tag == "rect"]
    assert {"model", "wheel", "conda", "runtime"} <= {one.get("class") for one in boxes}


def test_a_model_alone(tmp_path: Path) -> None:
    """Nothing to install, no runtime: the sections that stay are those of the model and of the disk."""
    page = Page(sheet_of(make_bundle(tmp_path, [], model=model_of())))
    assert "Model small" in page.titles and "Handing over" in page.titles
    assert not [title for title in page.titles if title.startswith("Packages")]
    assert "huggingface:owner/small" in page.text and "0" * 40 in page.text
    assert "with the publisher's hashes" in page.text
    assert "the target needs bundler already" in page.text


def test_a_signature_is_told_and_not_believed(tmp_path: Path) -> None:
    (folder,) = make_bundle(tmp_path, [], model=model_of())
    (folder / "SHA256SUMS.sig").write_bytes(b"anything")
    assert (
        "◐ partly signature SHA256SUMS.sig is here; whose it is was not checked"
        in Page(sheet_of([folder])).text
    )


def test_the_picture_says_the_sizes(packed: Path) -> None:
    """The rectangles of the treemap share the whole area as the sizes share the whole."""
    page = Page(sheet_of([packed]))
    boxes = [one for tag, one in page.elements if tag == "rect" and one.get("x") and "%" not in str(one["x"])]
    wide = boxes[: len(boxes) // 2]
    areas: dict[str, float] = {}
    for one in wide:
        area = float(str(one["width"])) * float(str(one["height"]))
        areas[str(one["class"])] = areas.get(str(one["class"]), 0) + area
    assert sum(areas.values()) == pytest.approx(1000 * 400, rel=0.001)
    runtime = sum((packed / name).stat().st_size for name in ("runtime.tar.gz", "install.sh"))
    tree = json.loads((packed / "manifest.json").read_text())["tree"]
    whole = runtime + sum(row[3] for row in tree)
    weights = sum(row[3] for row in tree if row[0].startswith("weights/"))
    assert areas["runtime"] / 400_000 == pytest.approx(runtime / whole, abs=0.002)
    assert areas["model"] / 400_000 == pytest.approx(weights / whole, abs=0.002)


def test_nothing_of_a_hostile_bundle_is_markup(hostile: str) -> None:
    page = Page(hostile)
    assert {tag for tag, _ in page.elements} <= MADE_OF
    attributes = {name for _, one in page.elements for name in one}
    assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "style")]
    assert page.text.count("document.title='OWNED'") >= 8, "it is shown as what it is"
    assert "49" not in re.findall(r"</style>(.{2})", page.text), "nor is it a template"


def test_the_policy_lets_nothing_in_but_the_page_s_own_style(hostile: str) -> None:
    page = Page(hostile)
    (policy,) = [str(one["content"]) for tag, one in page.elements if tag == "meta" and "http-equiv" in one]
    style = hostile[hostile.index("<style>") + len("<style>") : hostile.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_browser_runs_nothing_of_a_hostile_bundle(hostile: str, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").write_text(hostile, encoding="utf-8")
    shown = browse("--dump-dom", f"file://{tmp_path}/sheet.html").stdout.decode()
    assert "<title>Transfer sheet: little</title>" in shown


MEASURE = """
const code = document.querySelector('.qr svg').getBoundingClientRect();
const dots = document.querySelector('.qr svg path:last-of-type').getBoundingClientRect();
document.title = [
  innerWidth, document.documentElement.scrollWidth, getComputedStyle(document.querySelector('h1')).fontWeight,
  code.left < dots.left && dots.right < code.right && code.top < dots.top && dots.bottom < code.bottom
    && dots.width > 0.7 * code.width,
].join();
"""
"""Whether it scrolls, whether its style holds, whether the QR code is whole with white all around it."""


def measured(sheet: str, folder: Path, *options: str) -> list[str]:
    """Run the script in a page that lets it, under the page's own policy for all else."""
    head, body = sheet.split("default-src 'none';", 1)
    body = body.replace("</main>", f"</main><script>{MEASURE}</script>")
    (folder / "frame.html").write_text(
        f"{head}default-src 'none'; script-src 'unsafe-inline';{body}", "utf-8"
    )
    shown = browse(*options, "--dump-dom", f"file://{folder}/frame.html").stdout.decode()
    return re.findall(r"<title>(.*?)</title>", shown)[0].split(",")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["packed", "hostile"])
def test_no_screen_scrolls_sideways(
    packed: Path, hostile: str, tmp_path: Path, width: int, which: str
) -> None:
    sheet = hostile if which == "hostile" else sheet_of([packed])
    inner, scrolled, weight, code = measured(sheet, tmp_path, f"--window-size={width},900")
    assert int(inner) == width and int(scrolled) <= width
    assert (weight, code) == ("700", "true")


def test_the_code_is_the_digest_s_at_any_size(packed: Path) -> None:
    """It has a viewBox and no size of its own, so that no width cuts a piece off."""
    digest = hashlib.sha256((packed / "SHA256SUMS").read_bytes()).hexdigest()
    code = segno.make(digest, micro=False, error="m")
    side = code.symbol_size(border=4)[0]
    page = sheet_of([packed])
    drawn = re.findall(r' d="(M[^"]+)"', code.svg_inline(border=4))
    assert drawn[-1] in page
    (svg,) = [one for tag, one in Page(page).elements if tag == "svg" and "segno" in str(one.get("class"))]
    assert svg["viewbox"] == f"0 0 {side} {side}" and "width" not in svg


def test_paper_is_a4_and_nothing_is_lost(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.html").write_text(sheet_of([packed]), encoding="utf-8")
    browse("--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/sheet.pdf", f"file://{tmp_path}/sheet.html")
    data = (tmp_path / "sheet.pdf").read_bytes()
    sizes = re.findall(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)\s*\]", data)
    assert {(round(float(width)), round(float(height))) for width, height in sizes} == {(595, 842)}
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 2
