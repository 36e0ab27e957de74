"""Both hubs' real clients against hubs that are played on loopback, with all that goes wrong there."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.collect.models.source import carry
from bundler.collect.models.specs import open_model
from bundler.common.durable import locked
from bundler.common.progress import SilentReporter
from bundler.errors import BundlerError, DamagedError, FetchError, InputError, UnknownNameError, UsageError
from tests.collect.models.conftest import COMMIT, MODEL
from tests.support.hubs import Fault, read_folder

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.collect.models.source import CarriedModel, ModelSource
    from tests.support.hubs import Hub, Repo

HUBS = ("ms", "hf")
SHARD = "model-00002-of-00004.safetensors"
PAGE = b"<!DOCTYPE html><html><body>Please log in first</body></html>"


class Heard(SilentReporter):
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def opened(hub_word: str, tmp_path: Path, revision: str = "") -> ModelSource:
    return open_model(f"{hub_word}:{MODEL}{revision}", workspace=tmp_path)


def content(carried: CarriedModel) -> dict[str, str]:
    """Read every member's source to its end, as the archive does."""
    found = {}
    for member in carried.members:
        assert member.source is not None
        with member.source.open() as file:
            found[member.path.removeprefix("weights/tiny-glm4-moe/")] = hashlib.sha256(
                file.read()
            ).hexdigest()
    return found


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {
        path: hashlib.sha256(data).hexdigest() for path, data in files.items() if path != ".gitattributes"
    }


@pytest.mark.parametrize("word", HUBS)
def test_a_model_comes_whole_with_hashes_and_a_pinned_commit(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = opened(word, tmp_path)
    carried = carry(source, tmp_path / "weights")
    assert carried.entry.revision == COMMIT
    assert carried.entry.origin == f"{source.origin.partition(':')[0]}:{MODEL}"
    assert {member.path.split("/", 2)[2]: member.sha256 for member in carried.members} == digests(files)
    assert content(carried) == digests(files)
    assert carried.entry.license_files == (
        "weights/tiny-glm4-moe/LICENSE",
        "weights/tiny-glm4-moe/README.md",
    )
    assert not any(path.is_symlink() for path in (tmp_path / "weights").rglob("*"))
    assert not hub.store_tokens


@pytest.mark.parametrize("word", HUBS)
def test_a_second_fetch_asks_for_no_content(word: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    carry(opened(word, tmp_path), tmp_path / "weights")
    before = len(hub.content_requests(".safetensors"))
    carried = carry(opened(word, tmp_path), tmp_path / "weights")
    assert len(hub.content_requests(".safetensors")) == before > 0
    assert all(member.sha256 for member in carried.members)


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize("path", [SHARD, "config.json"])
def test_a_file_altered_on_the_disk_is_fetched_again(
    word: str, path: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    carry(opened(word, tmp_path), weights)
    altered = weights / "tiny-glm4-moe" / path
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    assert content(carry(opened(word, tmp_path), weights)) == digests(files)


def test_rehash_finds_what_kept_its_size_and_time(
    repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    import os

    weights = tmp_path / "weights"
    carry(opened("ms", tmp_path), weights)
    altered = weights / "tiny-glm4-moe" / SHARD
    times = altered.stat()
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    os.utime(altered, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content(carry(opened("ms", tmp_path), weights)) != digests(files)
    assert content(carry(opened("ms", tmp_path), weights, rehash=True)) == digests(files)


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(2, status=503),
        Fault(1, status=429, retry_after="0"),
        Fault(3, cut_at=400_000),
        Fault(1, ignore_range=True),
        Fault(1, flip=1_000_000),
        Fault(1, status=416),
        Fault(1, shift=7),
        Fault(2, instead=PAGE),
        Fault(2, instead=b""),
        Fault(2, instead=gzip.compress(b"x" * 100_000), headers=(("Content-Encoding", "gzip"),)),
        Fault(2, instead=gzip.compress(b"x" * 9), lengthless=True, headers=(("Content-Encoding", "gzip"),)),
        Fault(2, instead=b"x" * 6_000_000, lengthless=True),
        Fault(3, status=403),
    ],
    ids=[
        *("503", "429", "cut", "no-range", "flipped-once", "416", "other-range", "page", "empty"),
        *("compressed", "compressed-without-length", "longer", "address-expired"),
    ],
)
def test_what_passes_is_waited_for(
    word: str, fault: Fault, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.faults[SHARD] = [Fault(1, cut_at=300_000), fault]
    assert content(carry(opened(word, tmp_path), tmp_path / "weights")) == digests(files)


@pytest.mark.parametrize("word", HUBS)
def test_a_cut_connection_goes_on_where_it_was_cut(word: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    repo.faults[SHARD] = [Fault(1, cut_at=900_000)]
    carry(opened(word, tmp_path), tmp_path / "weights")
    asked = hub.content_requests(SHARD)
    assert asked[0] is None
    assert asked[1] is not None
    assert 500_000 < int(asked[1].removeprefix("bytes=").rstrip("-")) <= 900_000


@pytest.mark.parametrize("word", HUBS)
def test_listing_waits_for_a_busy_hub(word: str, repo: Repo, tmp_path: Path) -> None:
    repo.listing_faults = [Fault(1, status=429, retry_after="0"), Fault(1, status=503, retry_after="0")]
    assert opened(word, tmp_path).listing.files


@pytest.mark.parametrize("word", HUBS)
def test_a_hub_that_stays_broken_is_named_and_nothing_is_lost(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.faults[SHARD] = [Fault(1, cut_at=900_000), Fault(99, status=500)]
    with pytest.raises(FetchError, match=r"failed 8 times in a row: .*500") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert SHARD in str(caught.value)
    assert "goes on where it stopped" in str(caught.value.hint)
    repo.faults.clear()
    before = len(hub.content_requests(SHARD))
    assert content(carry(opened(word, tmp_path), tmp_path / "weights")) == digests(files)
    assert hub.content_requests(SHARD)[before] is not None


@pytest.mark.parametrize("word", HUBS)
def test_wrong_bytes_are_refused_after_two_tries(word: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    repo.faults[SHARD] = [Fault(99, flip=1_000_000)]
    with pytest.raises(DamagedError, match="other bytes than the publisher promised") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert SHARD in str(caught.value)
    assert "sha256" in caught.value.findings[0]
    assert len(hub.content_requests(SHARD)) == 2
    assert not (tmp_path / "weights/tiny-glm4-moe" / SHARD).exists()


@pytest.mark.parametrize("stream", [False, True])
def test_small_files_of_hugging_face_are_checked_by_their_git_blob(
    repo: Repo, tmp_path: Path, stream: bool
) -> None:
    repo.faults["config.json"] = [Fault(99, flip=10)]
    with pytest.raises(DamagedError, match=r"config\.json") as caught:
        carry(opened("hf", tmp_path), tmp_path / "weights", stream=stream)
    assert "git blob" in caught.value.findings[0]


@pytest.mark.parametrize("word", HUBS)
def test_a_file_that_changed_after_it_was_listed_is_named(
    word: str, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = opened(word, tmp_path)
    assert source.listing
    repo.states[COMMIT].files[SHARD] = files[SHARD] + b"more"
    with pytest.raises(DamagedError, match=f"{SHARD} changed on .* after it was listed") as caught:
        carry(source, tmp_path / "weights")
    assert f"was {len(files[SHARD])} bytes long and is {len(files[SHARD]) + 4} now" in str(caught.value)
    assert "lists the files anew" in str(caught.value.hint)


@pytest.mark.parametrize("word", HUBS)
def test_a_page_instead_of_the_listing_is_said(word: str, repo: Repo, tmp_path: Path) -> None:
    repo.listing_faults = [Fault(99, instead=PAGE, headers=(("Content-Type", "text/html"),))]
    with pytest.raises(FetchError, match="something else than a listing: a page of a proxy") as caught:
        assert opened(word, tmp_path).listing
    assert "HTTPS_PROXY" in str(caught.value.hint)


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize("body", [PAGE, b""])
def test_another_length_that_stays_is_said_with_both(
    word: str, body: bytes, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.faults[SHARD] = [Fault(99, instead=body)]
    with pytest.raises(
        DamagedError, match=f"{SHARD} has {len(body)} bytes at its address, {len(files[SHARD])} are expected"
    ) as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert "changed" not in str(caught.value)


@pytest.mark.parametrize("word", HUBS)
def test_what_came_before_a_portals_page_is_kept(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.faults[SHARD] = [Fault(1, cut_at=2_000_000), Fault(99, instead=PAGE)]
    with pytest.raises(DamagedError, match=f"{SHARD} has {len(PAGE)} bytes"):
        carry(opened(word, tmp_path), tmp_path / "weights")
    repo.faults.clear()
    before = len(hub.content_requests(SHARD))
    assert content(carry(opened(word, tmp_path), tmp_path / "weights")) == digests(files)
    (asked,) = hub.content_requests(SHARD)[before:]
    assert asked and int(asked.removeprefix("bytes=").rstrip("-")) > 1_000_000


@pytest.mark.parametrize("word", HUBS)
def test_a_store_host_that_keeps_refusing_is_named(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.faults[SHARD] = [Fault(99, status=403)]
    with pytest.raises(FetchError, match=r"localhost refused the address that .* gave \(403\)") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert "accept the terms" not in str(caught.value)


@pytest.mark.parametrize("word", HUBS)
def test_a_file_that_is_listed_and_gone_is_named(word: str, repo: Repo, tmp_path: Path) -> None:
    repo.hidden.add(SHARD)
    with pytest.raises(FetchError, match=f"{SHARD} is no longer on"):
        carry(opened(word, tmp_path), tmp_path / "weights")


@pytest.mark.parametrize("word", HUBS)
def test_files_that_changed_in_their_bytes_alone_are_fetched_again(
    word: str, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Neither size nor time tells: the digest that was remembered is compared with the new listing's."""
    repo.put({**files, "README.md": b"first"}, "b" * 40)
    carry(opened(word, tmp_path), tmp_path / "weights")
    shard = files[SHARD][:-1] + bytes([files[SHARD][-1] ^ 1])
    newer = {"README.md": b"other", SHARD: shard}
    repo.put({**files, **newer}, "c" * 40)
    carry(opened(word, tmp_path), tmp_path / "weights")
    folder = tmp_path / "weights" / "tiny-glm4-moe"
    assert {name: (folder / name).read_bytes() for name in newer} == newer


@pytest.mark.parametrize("word", HUBS)
def test_a_missing_shard_is_named_by_the_proof(
    word: str, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    del repo.states[COMMIT].files[SHARD]
    with pytest.raises(DamagedError, match="not whole") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert f"{SHARD} is missing: the index puts" in caught.value.findings[0]


@pytest.mark.parametrize("word", HUBS)
def test_a_branch_that_moved_is_said_and_only_changes_are_fetched(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    carry(opened(word, tmp_path), tmp_path / "weights")
    before = len(hub.content_requests(".safetensors"))
    newer = {**files, "README.md": b"---\nlicense: apache-2.0\n---\nnewer\n"}
    repo.put(newer, "b" * 40)
    heard = Heard()
    carried = carry(opened(word, tmp_path), tmp_path / "weights", reporter=heard)
    assert carried.entry.revision == "b" * 40
    assert carried.entry.facts.license == "apache-2.0"
    assert any("moved from " + COMMIT in line for line in heard.lines)
    assert len(hub.content_requests(".safetensors")) == before
    old = carry(opened(word, tmp_path, f"@{COMMIT}"), tmp_path / "old")
    assert content(old) == digests(files)
    assert old.entry.revision == COMMIT


def test_a_last_commit_that_only_removed_files_is_not_taken_for_an_older_one(
    repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.put({**files, "extra.md": b"extra"}, "b" * 40)
    repo.put(files, "c" * 40)
    listing = opened("ms", tmp_path).listing
    assert "extra.md" not in listing.sizes()
    assert listing.revision in ("master", COMMIT)
    repo.put({**files, "README.md": b"new", "extra.md": b"extra"}, "d" * 40)
    repo.put({**files, "README.md": b"new"}, "e" * 40)
    assert opened("ms", tmp_path).listing.revision == "master", "the newest file's commit had one more"


@pytest.mark.parametrize("word", HUBS)
def test_a_commit_that_is_gone_is_named(word: str, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no revision 'dddd.*removed or rewritten"):
        assert opened(word, tmp_path, "@" + "d" * 40).listing


@pytest.mark.parametrize("word", HUBS)
def test_an_unknown_id_is_answered_with_near_ones(word: str, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"has no model Team/tiny-glm; there are {MODEL}"):
        assert open_model(f"{word}:Team/tiny-glm", workspace=tmp_path).listing


@pytest.mark.parametrize(
    ("word", "place"), [("ms", "MODELSCOPE_API_TOKEN"), ("hf", "HF_TOKEN")], ids=["ms", "hf"]
)
def test_a_gated_model_says_where_the_token_goes(
    word: str,
    place: str,
    hub: Hub,
    repo: Repo,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo.token = "secret-word"
    with pytest.raises(FetchError, match=r"without a token that may read it \(401\)") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert place in str(caught.value.hint)
    monkeypatch.setenv(place, "secret-word")
    repo.terms = True
    with pytest.raises(FetchError, match=r"\(403\)") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert "accept the terms" in str(caught.value.hint)
    assert "secret-word" not in str(caught.value)
    repo.terms = False
    assert content(carry(opened(word, tmp_path), tmp_path / "weights")) == digests(files)
    assert not hub.store_tokens


@pytest.mark.parametrize("word", HUBS)
def test_a_hub_out_of_reach_is_named(
    word: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    with pytest.raises(FetchError, match=r"can't be reached \(Connection refused\)") as caught:
        assert opened(word, tmp_path).listing
    assert "127.0.0.1:9" in str(caught.value)


def test_the_manifests_other_hub_is_named_where_one_is_out_of_reach(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    with pytest.raises(FetchError, match="can't be reached") as caught:
        assert open_model("GLM-4.7", workspace=tmp_path).listing
    assert "--model hf:" in str(caught.value.hint)


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize("token", ["secret\nword", "secret-wörd", "secret-word\n"])
def test_a_token_that_cannot_be_sent_is_named_and_not_shown(
    word: str, token: str, hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"ms": "MODELSCOPE_API_TOKEN", "hf": "HF_TOKEN"}[word]
    monkeypatch.setenv(variable, token)
    with pytest.raises(UsageError, match=variable) as caught:
        assert opened(word, tmp_path).listing
    assert "secret" not in str(caught.value) and not hub.requests


@pytest.mark.parametrize("word", HUBS)
def test_a_file_listed_without_its_size_is_refused(word: str, repo: Repo, tmp_path: Path) -> None:
    repo.listed["config.json"] = {"size": None}
    with pytest.raises(FetchError, match=r"lists no size of config\.json"):
        assert opened(word, tmp_path).listing


@pytest.mark.parametrize("word", HUBS)
def test_a_revision_with_a_plus_comes(word: str, repo: Repo, files: dict[str, bytes], tmp_path: Path) -> None:
    repo.put({**files, "README.md": b"plus"}, "b" * 40, "v1+cu128")
    repo.branches["main"] = repo.branches["master"] = COMMIT
    carried = carry(opened(word, tmp_path, "@v1+cu128"), tmp_path / "weights")
    assert content(carried)["README.md"] == hashlib.sha256(b"plus").hexdigest()


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_named_by_their_variable(
    word: str, variable: str, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=f"certificates that {variable} names"):
        assert opened(word, tmp_path).listing


@pytest.mark.parametrize("word", HUBS)
@pytest.mark.parametrize("way", ["socks5://127.0.0.1:9", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_no_defect(
    word: str, way: str, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, way)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    with pytest.raises(BundlerError):
        assert opened(word, tmp_path).listing


@pytest.mark.parametrize("word", HUBS)
def test_of_two_sets_of_shards_the_hubs_index_tells_which_is_loaded(
    word: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    """The index alone is read for the listing, and only where names don't tell."""
    assert opened(word, tmp_path).listing.loaded[1] == SHARD
    assert not [ranged for *_, ranged in hub.requests if ranged]
    repo.states[COMMIT].files["model-00001-of-00001.safetensors"] = b"another set"
    listing = opened(word, tmp_path).listing
    assert [file.path for file in listing.left_out] == ["model-00001-of-00001.safetensors"]
    assert len(listing.loaded) == 4
    assert len([ranged for *_, ranged in hub.requests if ranged]) == 1


@pytest.mark.parametrize("word", HUBS)
def test_a_repository_without_a_config_is_refused_before_anything_is_fetched(
    word: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    del repo.states[COMMIT].files["config.json"]
    with pytest.raises(InputError, match=r"there is no config\.json among the files"):
        assert opened(word, tmp_path).listing
    assert not hub.content_requests(".safetensors")


@pytest.mark.parametrize("word", HUBS)
def test_gguf_is_refused_before_anything_is_fetched(word: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    files = repo.states[COMMIT].files
    for path in [path for path in files if "safetensors" in path]:
        del files[path]
    files["model-Q4_K_M.gguf"] = b"GGUF"
    with pytest.raises(InputError, match=r"the weights are GGUF \(model-Q4_K_M.gguf\)"):
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert not [ranged for *_, ranged in hub.requests if ranged]


@pytest.mark.parametrize("word", HUBS)
def test_paths_that_lead_out_are_refused(word: str, repo: Repo, tmp_path: Path) -> None:
    repo.states[COMMIT].files["../../evil.json"] = b"{}"
    with pytest.raises(DamagedError, match="can't be carried") as caught:
        carry(opened(word, tmp_path), tmp_path / "weights")
    assert "evil" in caught.value.findings[0]
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("word", HUBS)
def test_a_stream_reads_the_same_bytes_and_leaves_no_copy(
    word: str, hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    on_disk = carry(opened(word, tmp_path), tmp_path / "weights")
    hub.requests.clear()
    repo.faults[SHARD] = [Fault(2, cut_at=300_000)]
    streamed = carry(opened(word, tmp_path), tmp_path / "elsewhere", stream=True)
    asked = hub.content_requests(".safetensors")
    assert all(asked), "the proof of completeness reads headers only"
    assert streamed.entry == on_disk.entry
    assert [(m.path, m.size, m.sha256) for m in streamed.members] == [
        (m.path, m.size, m.sha256) for m in on_disk.members
    ]
    assert content(streamed) == digests(files)
    assert not (tmp_path / "elsewhere").exists()


def test_a_stream_can_go_on_in_the_middle(
    hub: Hub, repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    streamed = carry(opened("ms", tmp_path), tmp_path / "weights", stream=True)
    member = next(member for member in streamed.members if member.path.endswith(SHARD))
    assert member.source is not None
    with member.source.open() as file:
        file.seek(1_234_567)
        assert file.read() == files[SHARD][1_234_567:]
    assert hub.content_requests(SHARD)[-1] == "bytes=1234567-"


def test_a_file_without_a_publishers_hash_cannot_be_streamed(repo: Repo, tmp_path: Path) -> None:
    repo.listed["config.json"] = {"sha256": None}
    with pytest.raises(InputError, match="can't be streamed") as caught:
        carry(opened("ms", tmp_path), tmp_path / "weights", stream=True)
    assert caught.value.findings == ("config.json",)
    assert carry(opened("ms", tmp_path), tmp_path / "weights").entry.facts.shards == 4


def test_a_streamed_shard_is_proved_whole_before_it_is_read(
    repo: Repo, files: dict[str, bytes], tmp_path: Path
) -> None:
    repo.states[COMMIT].files[SHARD] = files[SHARD][:-4]
    with pytest.raises(DamagedError, match="not whole") as caught:
        carry(opened("hf", tmp_path), tmp_path / "weights", stream=True)
    assert f"{SHARD}: truncated" in caught.value.findings[0]


def test_a_full_disk_is_seen_before_the_first_byte(
    hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(BundlerError, match=r"wants \d+(\.\d)? [MG]B more on this disk") as caught:
        carry(opened("ms", tmp_path), tmp_path / "weights")
    assert "--stream" in str(caught.value.hint)
    assert not hub.content_requests(".safetensors")


def test_the_pack_from_the_hub_equals_the_folder(tiny_model: Path, repo: Repo, tmp_path: Path) -> None:
    from_hub = carry(opened("ms", tmp_path), tmp_path / "weights")
    from_folder = carry(open_model(str(tiny_model), workspace=tmp_path), tmp_path / "weights")
    assert from_hub.entry.facts == from_folder.entry.facts
    assert [(m.path, m.size) for m in from_hub.members] == [(m.path, m.size) for m in from_folder.members]
    assert read_folder(tmp_path / "weights/tiny-glm4-moe") == read_folder(tiny_model)


def test_an_empty_listing_is_said(repo: Repo, tmp_path: Path) -> None:
    repo.states[COMMIT].files.clear()
    with pytest.raises(FetchError, match="lists no file"):
        assert opened("ms", tmp_path).listing


def test_a_thousand_files_are_listed_in_a_second(hub: Hub, tmp_path: Path) -> None:
    import time

    from tests.support.hubs import Repo

    made = hub.repos[MODEL] = Repo()
    shards = {f"model-{n:05}-of-01000.safetensors": b"%d" % n for n in range(1, 1001)}
    made.put({"config.json": b"{}", **shards}, COMMIT)
    start = time.monotonic()
    for word in HUBS:
        assert len(opened(word, tmp_path).listing.files) == 1001
    assert time.monotonic() - start < 3


def test_a_second_bundler_does_not_write_the_same_files(repo: Repo, tmp_path: Path) -> None:
    state = tmp_path / "weights/.bundler"
    state.mkdir(parents=True)
    with (
        locked(state / "tiny-glm4-moe.lock", pytest.fail),
        pytest.raises(FetchError, match="another bundler is fetching"),
    ):
        carry(opened("ms", tmp_path), tmp_path / "weights")


def test_nothing_that_identifies_this_host_is_kept_or_sent(hub: Hub, repo: Repo, tmp_path: Path) -> None:
    carry(opened("ms", tmp_path), tmp_path / "weights")
    assert hub.agents
    assert all(f"session_id/{'0' * 32}" in agent for agent in hub.agents if "session_id" in agent)
    assert not list((tmp_path / "modelscope").rglob("session"))
