"""Fuzz what reads bundles for some minutes: by coverage where atheris is installed, else by hypothesis alone.

What is found lies in ``.fuzz/found``; minimised, it belongs into ``tests/hostile/corpus``.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from tests.hostile.targets import CORPUS, TARGETS, corpus, run

WORK = Path(".fuzz")
LARGEST = 20_000
"""Bytes of an input, and seconds that one may take."""
LONGEST = 20


def main() -> int:
    """Fuzz each target in a process of its own, and say which failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="for all targets together")
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="one alone; repeatable")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    targets = words.target or [*TARGETS]
    seconds = max(1, round(words.minutes * 60 / len(targets)))
    if words.child:
        return fuzz(targets[0], seconds)
    way = "atheris" if importlib.util.find_spec("atheris") else "hypothesis"
    failed = []
    for target in targets:
        print(f"{target}: {seconds} s by {way}", flush=True)
        command = [sys.executable, "-m", "tests.hostile", "--child", "--target", target]
        if subprocess.run([*command, "--minutes", str(seconds / 60)], check=False).returncode:
            failed.append(target)
    print(f"fuzzed {len(targets)} targets, {len(failed)} failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def fuzz(target: str, seconds: int) -> int:
    """Fuzz one target until the time is over, or something is found."""
    try:
        import atheris
    except ImportError:
        return by_hypothesis(target, seconds)
    for name in ("learnt", "found"):
        (WORK / name / target).mkdir(parents=True, exist_ok=True)
    atheris.instrument_all()
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST}",
        f"-timeout={LONGEST}",
        "-rss_limit_mb=2000",
    ]
    options += [f"-artifact_prefix={WORK}/found/{target}/", "-print_final_stats=0", "-verbosity=0"]
    folders = [str(WORK / "learnt" / target), str(CORPUS / target)]
    atheris.Setup([sys.argv[0], *options, *folders], lambda data: run(target, data))
    atheris.Fuzz()
    return 0


def by_hypothesis(target: str, seconds: int) -> int:
    """Try altered inputs until the time is over; what fails is shrunk and kept."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from tests.hostile.mutations import altered, altered_json

    known = [*corpus(target).values()]
    ways = [altered(known), st.binary(max_size=2_000)]
    ways += [altered_json(known)] if target == "manifest" else []
    least: list[bytes] = []

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.one_of(*ways))
    def tried(data: bytes) -> None:
        least[:] = [data]
        run(target, data)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            tried()
        except Exception as problem:
            folder = WORK / "found" / target
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "least").write_bytes(least[0])
            print(f"{target}: {type(problem).__name__}: {problem}\n  kept in {folder}/least", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
