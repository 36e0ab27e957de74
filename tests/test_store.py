"""The store: addresses to places that never leave it, and damage that is found without hashing all again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.artifact import Artifact
from bundler.errors import InputError
from bundler.store import Store

ROOT = Path("/nowhere/.pkg-cache")


def artifact(url: str, data: bytes, *, size: bool = True) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact("wheel", "a", "1", url, digest, len(data) if size else None)


def put(store: Store, one: Artifact, data: bytes) -> Path:
    path = store.path(one.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://Host.example/a/b.whl", "mirror/host.example/a/b.whl"),
        ("https://h.example/x/torch-2%2Bcu128-py3.whl", "mirror/h.example/x/torch-2+cu128-py3.whl"),
        ("http://h.example:8080/a", "mirror/h.example_8080/a"),
        ("https://user:secret@h.example/a?token=1#sha256=2", "mirror/h.example/a"),
        ("https://h.example//a///b", "mirror/h.example/a/b"),
        ("http://[::1]:8080/a", "mirror/ip6---1_8080/a"),
    ],
)
def test_places(url: str, place: str) -> None:
    store = Store(ROOT)
    assert store.relative(url) == place
    assert store.path(url) == ROOT / place
    assert store.tree_path(url) == f".pkg-cache/{place}"


def test_local_files_do_not_tell_their_folder() -> None:
    place = Store(ROOT).relative("file:///home/somebody/channel/noarch/a-1-0.conda")
    assert place.startswith("mirror/file/") and place.endswith("/a-1-0.conda")
    assert "somebody" not in place
    other = Store(ROOT).relative("file:///home/somebody/other/noarch/a-1-0.conda")
    assert other != place, "two channels may have a file of the same name"


def test_the_origin_is_the_first_folder() -> None:
    store = Store(ROOT)
    assert store.relative("https://h.example:8080/x").split("/")[1] == "h.example_8080"


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/../etc/passwd",
        "https://h.example/a/%2e%2e/%2e%2e/b",
        "https://h.example/a%2f..%2fb",
        "https://../x",
        "https://.../x",
        "https:///x",
        "https://h.example/",
        "https://h.example",
        "https://h.example/a%00b",
        "https://h.example/a%0Ab",
        "https://h.example/%ff",
        "https://h.example/" + "a" * 300,
        "https://h.example:99999/a",
        "ftp://h.example/a",
        "oci://h.example/a",
        "/etc/passwd",
        "",
    ],
)
def test_hostile_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        Store(ROOT).relative(url)


@given(st.text(alphabet="ab./%2eEfF:@?#[]\\ \x00é", max_size=30), st.sampled_from(["http", "https", "file"]))
def test_no_address_leaves_the_store(text: str, scheme: str) -> None:
    try:
        place = PurePosixPath(Store(ROOT).relative(f"{scheme}://{text}"))
    except InputError:
        return
    assert not place.is_absolute()
    assert place.parts[0] == "mirror" and len(place.parts) >= 3
    assert not {".", ".."} & set(place.parts)


def test_missing_and_damaged_files_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole, absent = artifact("https://h.example/w", b"whole"), artifact("https://h.example/a", b"absent")
    short, altered = artifact("https://h.example/s", b"short"), artifact("https://h.example/x", b"altered")
    put(store, whole, b"whole")
    put(store, short, b"sho")
    put(store, altered, b"ALTERED")
    everything = [whole, absent, short, altered]
    assert store.missing(everything) == [absent, short, altered]
    assert [store.verify(one) for one in everything] == [True, False, False, False]
    assert store.has(altered), "a look sees the size only"


def test_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    one = artifact("https://h.example/w", b"whole")
    put(store, one, b"whole")
    assert store.missing([one]) == []
    monkeypatch.setattr("bundler.store.sha256_of", lambda *_: pytest.fail("hashed again"))
    assert store.missing([one]) == []


def test_memory_is_not_fooled_by_a_restored_modification_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = artifact("https://h.example/w", b"whole")
    path = put(store, one, b"whole")
    assert store.missing([one]) == []
    before = path.stat()
    path.write_bytes(b"WHOLE")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.missing([one]) == [one]


def test_memory_is_of_the_sha256_that_was_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = artifact("https://h.example/w", b"whole")
    put(store, one, b"whole")
    assert store.missing([one]) == []
    relocked = Artifact("wheel", "a", "1", one.url, "0" * 64, 5)
    assert store.missing([relocked]) == [relocked]


def test_deep_hashes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    one = artifact("https://h.example/w", b"whole")
    put(store, one, b"whole")
    store.record({one: str(one.sha256)})
    monkeypatch.setattr("bundler.store.sha256_of", lambda *_: "0" * 64)
    assert store.missing([one]) == []
    assert store.missing([one], deep=True) == [one]


def by_md5(url: str, data: bytes) -> Artifact:
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Artifact("conda", "a", "1", url, None, len(data), md5=digest)


def test_what_an_md5_alone_fixes_is_checked_by_it_and_from_there_on_by_its_sha256(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole, altered = (
        by_md5("https://h.example/w.conda", b"whole"),
        by_md5("https://h.example/x.conda", b"alter"),
    )
    put(store, whole, b"whole")
    put(store, altered, b"ALTER")
    assert [store.verify(one) for one in (whole, altered)] == [True, False]
    assert store.sha256(whole) is None
    assert store.missing([whole, altered]) == [altered]
    assert store.sha256(whole) == hashlib.sha256(b"whole").hexdigest()
    assert store.sha256(altered) is None


def test_bytes_of_the_right_md5_and_another_sha256_are_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = by_md5("https://h.example/w.conda", b"whole")
    put(store, one, b"whole")
    store.record({one: "0" * 64})
    assert store.missing([one]) == []
    assert store.missing([one], deep=True) == [one]
    assert not store.verify(one)


def test_a_recorded_sha256_is_of_the_md5_that_was_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = by_md5("https://h.example/w.conda", b"whole")
    put(store, one, b"whole")
    assert store.missing([one]) == []
    relocked = by_md5(one.url, b"other")
    assert store.sha256(relocked) is None
    assert store.missing([relocked]) == [relocked]


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"mirror/h.example/w": 7}', b"\xff\xfe"])
def test_a_damaged_memory_costs_time_only(tmp_path: Path, rubbish: bytes) -> None:
    store = Store(tmp_path)
    one = artifact("https://h.example/w", b"whole")
    put(store, one, b"whole")
    (tmp_path / "bundler").mkdir()
    (tmp_path / "bundler" / "verified.json").write_bytes(rubbish)
    assert store.missing([one]) == []


def test_a_store_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    one = artifact("https://h.example/w", b"whole")
    put(Store(tmp_path), one, b"whole")
    (tmp_path / "bundler").write_text("a file where the memory's folder should be")
    assert Store(tmp_path).missing([one]) == []


def test_the_teams_layout(tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    store.make_folders()
    variables = store.cache_environment()
    assert list(variables) == [
        *("RATTLER_CACHE_DIR", "UV_CACHE_DIR", "PIP_CACHE_DIR", "PIXI_CACHE_DIR", "XDG_CACHE_HOME")
    ]
    assert all(Path(folder).is_dir() and Path(folder).is_absolute() for folder in variables.values())
    below = [str(Path(folder).relative_to(tmp_path / ".pkg-cache")) for folder in variables.values()]
    assert below == ["conda/rattler", "pypi/uv", "pypi/pip", "pixi", "xdg"]
