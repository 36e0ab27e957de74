"""Work on many things in threads, in any order or in theirs, ended when one fails or the user interrupts."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

LINGER = 2.0
"""Seconds that an ending waits for threads that are stuck in the system, a slow host for example."""
MOST_THREADS = 16
"""More would take more memory and no less time."""


def default_threads() -> int:
    """Return the number of processors this process may use, at most 16."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


def each(
    work: Callable[[T, threading.Event], R],
    items: Iterable[T],
    *,
    threads: int,
    on_stop: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield ``work(item, stop)`` of each item as it is done, in any order.

    The first exception of a worker is raised here; then, or when the caller stops early or is interrupted,
    ``stop`` is set, no further item is begun, and the threads are waited for.

    :param work: looks at ``stop`` now and then and returns early once it is set.
    :param items: what to work on, begun in this order.
    :param threads: how many at once, at most.
    :param on_stop: wakes workers that wait in the system, such as on a socket.
    """
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    count = 0
    for item in items:
        todo.put(item)
        count += 1
    stop = threading.Event()
    done: queue.SimpleQueue[tuple[R, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def run() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((work(item, stop), None))
            except BaseException as problem:
                done.put((None, problem))

    # Daemons, so that a thread stuck in the system never keeps the process from ending.
    workers = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, count))]
    try:
        for worker in workers:
            worker.start()
        for _ in range(count):
            result, problem = done.get()
            if problem is not None:
                raise problem
            yield result  # type: ignore[misc]
    finally:
        stop.set()
        if on_stop is not None:
            on_stop()
        deadline = time.monotonic() + LINGER
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))


def in_order(
    work: Callable[[T], R], items: Iterable[T], threads: int, name: str, *, ahead: int = 0
) -> Generator[tuple[T, R]]:
    """Yield each item with what ``work`` made of it, in the items' order, with few of them in flight.

    The first exception of ``work`` is raised in its turn; later items are dropped then. Close the generator
    to end the threads early; they finish the item they are at.

    :param items: taken one by one, by the caller's thread.
    :param ahead: how many items may be in flight; by default twice the threads.
    """
    most = ahead or 2 * threads
    pool = ThreadPoolExecutor(threads, name)
    pending: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            while len(pending) >= most or (pending and pending[0][1].done()):
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
