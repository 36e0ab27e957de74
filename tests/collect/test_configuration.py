"""pixi's configuration files: which count, which win, and what their mirrors mean for an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bundler.collect.configuration import load_configuration
from bundler.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "https://conda.example.invalid/forge/noarch/a-1-0.conda"


def write(path: Path, **mirrors: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'"https://{host}.example.invalid/" = ["{target}"]' for host, target in mirrors.items()]
    path.write_text("[mirrors]\n" + "\n".join(lines) + "\n")
    return path


def test_without_mirrors_an_address_is_itself(home: Path) -> None:
    assert load_configuration().candidates(ADDRESS) == (ADDRESS,)


def test_all_files_count_and_the_nearest_wins(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".config/pixi/config.toml", a="http://xdg/", b="http://xdg/", c="http://xdg/")
    write(home / ".pixi/config.toml", b="http://home/", c="http://home/")
    write(tmp_path / "ws/.pixi/config.toml", c="http://ws/")

    def lead() -> list[str]:
        loaded = load_configuration(tmp_path / "ws")
        return [loaded.candidates(f"https://{host}.example.invalid/x")[0] for host in "abc"]

    assert lead() == ["http://xdg/x", "http://home/x", "http://ws/x"]
    monkeypatch.setenv("PIXI_HOME", str(tmp_path / "other"))
    write(tmp_path / "other/config.toml", b="http://pixi-home/")
    assert lead() == ["http://xdg/x", "http://pixi-home/x", "http://ws/x"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    assert lead()[0] == "https://a.example.invalid/x"
    monkeypatch.setenv("PIXI_CONFIG_FILE", str(write(tmp_path / "named.toml", a="http://named/")))
    assert lead() == ["http://named/x", "https://b.example.invalid/x", "http://ws/x"]


def test_no_config_leaves_the_workspaces_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".pixi/config.toml", a="http://home/")
    write(tmp_path / "ws/.pixi/config.toml", b="http://ws/")
    monkeypatch.setenv("PIXI_NO_CONFIG", "true")
    assert [prefix for prefix, _ in load_configuration(tmp_path / "ws").mirrors] == [
        "https://b.example.invalid/"
    ]


def test_the_longest_prefix_wins_and_ends_at_a_slash(tmp_path: Path) -> None:
    (tmp_path / ".pixi").mkdir()
    (tmp_path / ".pixi/config.toml").write_text(
        '[mirrors]\n"https://conda.example.invalid" = ["http://all"]\n'
        '"https://conda.example.invalid/forge" = ["http://one/m", "http://two/m/"]\n'
    )
    loaded = load_configuration(tmp_path)
    assert loaded.candidates(ADDRESS) == (
        "http://one/m/noarch/a-1-0.conda",
        "http://two/m/noarch/a-1-0.conda",
    )
    assert loaded.candidates("https://conda.example.invalid/forgery/x") == ("http://all/forgery/x",)
    assert loaded.candidates("https://CONDA.example.invalid:443/y%2Bz") == ("http://all/y%2Bz",)
    assert loaded.candidates("https://conda.example.invalid:8443/y") == (
        "https://conda.example.invalid:8443/y",
    )


def test_mirrors_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / ".pixi").mkdir()
    path = tmp_path / ".pixi/config.toml"
    path.write_text('[mirrors]\n"https://conda.example.invalid" = ["oci://ghcr.invalid/x"]\n')
    loaded = load_configuration(tmp_path)
    assert loaded.candidates("https://other.example.invalid/x"), "met by nobody, it hurts nobody"
    with pytest.raises(InputError, match=r"oci://ghcr\.invalid") as caught:
        loaded.candidates(ADDRESS)
    assert caught.value.hint and "http" in caught.value.hint
    path.write_text('[mirrors]\n"https://conda.example.invalid" = ["oci://x/y", "file:///srv/m"]\n')
    assert load_configuration(tmp_path).candidates("https://conda.example.invalid/a") == ("file:///srv/m/a",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mirrors\n", "is broken: .*line 1"),
        ("mirrors = 1\n", "not a table"),
        ('[mirrors]\n"https://a/" = "https://b/"\n', "needs a list"),
    ],
)
def test_broken_configuration(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / ".pixi").mkdir()
    (tmp_path / ".pixi/config.toml").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        load_configuration(tmp_path)
    assert caught.value.where == tmp_path / ".pixi/config.toml"


def test_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXI_CONFIG_FILE", str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="PIXI_CONFIG_FILE"):
        load_configuration()


def test_toml_11_is_read_as_pixi_reads_it(home: Path) -> None:
    config = home / ".pixi/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('mirrors = {\n  "https://conda.example.invalid/" = ["http://near/"],\n}\n')
    assert load_configuration().candidates(ADDRESS)[0] == "http://near/forge/noarch/a-1-0.conda"
