"""How much a process grows: what Python allocates, and what libraries in C do."""

import ctypes
import gc
from collections.abc import Callable

import psutil


def _used() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc: what earlier tests have freed must not hide what is taken now
    return int(psutil.Process().memory_info().rss)


def growth(work: Callable[[], object]) -> int:
    """Bytes that this process is larger by after some work. Let it have done the same before: caches fill up once."""
    before = _used()
    work()
    return _used() - before
