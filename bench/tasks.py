"""What the contenders run. Imports nothing heavy: fresh workers import it too."""

from __future__ import annotations

import time


def identity(value):
    return value


def identity_of_two(first, second):
    return first, second


def identity_of_names(**named):
    return named


def nothing():
    return None


def spin(turns):
    """Work that is CPU time and nothing else."""
    for _ in range(turns):
        pass
    return turns


def calibrate():
    """Turns of `spin` that take a second, by the best of some tries."""
    best = 0.0
    for _ in range(9):
        start = time.perf_counter()
        spin(200_000)
        best = max(best, 200_000 / (time.perf_counter() - start))
    return best


def array_back(array):
    """Both ways: what comes back is another array than what came."""
    array[0] += 1
    return array


def first_of(shared, i):
    return float(shared[i])


_shared = None


def keep_shared(shared):
    """For pools that hand shared objects to an initializer alone."""
    global _shared
    _shared = shared


def first_of_kept(i):
    return float(_shared[i])
