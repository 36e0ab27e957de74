"""An inner side for the tests: does one of a few things."""

from __future__ import annotations

import os

import msgspec

from bundler.install.child import OuterSide, answer_and_exit


class InnerTask(msgspec.Struct, frozen=True):
    what: str


def do(task: InnerTask, outer: OuterSide) -> list[int] | None:
    with outer.phase("count") as meter:
        meter.advance(3)
        meter.advance(-1)
    print('{"advance": "many"}')
    print('{"level": "info"}')
    print("plain, of a library", flush=True)
    if task.what == "fail":
        raise ValueError("it failed\nin two lines")
    if task.what == "die":
        os.kill(os.getpid(), 9)
    if task.what == "fail after it":
        outer.give([1, 2])
        raise ValueError("it failed\nin two lines")
    return None if task.what == "silent" else [1, 2]


if __name__ == "__main__":
    answer_and_exit(InnerTask, do)
