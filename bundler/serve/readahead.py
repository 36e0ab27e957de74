"""Reading the weights into the page cache while SGLang is still importing."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

THREADS = 4
BLOCK = 8 << 20
SPARE_SHARE = 0.15
"""Share of main memory that must stay free beside the weights, or reading ahead pushes out what was read."""


class ReadAhead:
    """Reads a model's shards, in the order in which they are loaded, until told to stop."""

    def __init__(self, folder: Path, threads: int = THREADS) -> None:
        """Begin to read a model's folder, if the weights fit into free memory."""
        files = sorted(folder.glob("*.safetensors"))
        self._lock, self._stop = threading.Lock(), threading.Event()
        self.read = 0
        """Bytes read so far."""
        self.total = sum(path.stat().st_size for path in files)
        self.on = fits(self.total)
        """Whether it reads at all."""
        self._pool = ThreadPoolExecutor(threads, "read ahead")
        for path in files if self.on else ():
            self._pool.submit(self._read, path)

    def stop(self) -> None:
        """Stop reading, and wait for the threads."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _read(self, path: Path) -> None:
        block = bytearray(BLOCK)
        try:
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while not self._stop.is_set() and (count := file.readinto(block)):
                    with self._lock:
                        self.read += count
        except OSError:
            return  # the server meets the same error, and says so


def fits(size: int) -> bool:
    """Say whether so many bytes can lie in the page cache and leave the host its room."""
    memory = psutil.virtual_memory()
    return 0 < size < memory.available - SPARE_SHARE * memory.total
