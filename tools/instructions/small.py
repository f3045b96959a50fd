"""The Python face's hot paths, each many times, between marks that callgrind counts from."""

from __future__ import annotations

import ctypes
import gc
import sys

from tercio import WorkerPool, _core

mark = ctypes.CDLL(sys.argv[1]).mark


def identity(value):
    return value


def measure(name, once, argument, rounds, per=1):
    for _ in range(3):
        once(argument)
    mark(b"-")
    for _ in range(rounds):
        once(argument)
    mark(f"{name}/{rounds * per}".encode())


def main():
    gc.disable()  # a collection in the middle counts for who happens to be there
    n = 1000
    values = {
        "int": tuple(range(n)),
        "float": tuple(i + 0.5 for i in range(n)),
        "str": tuple(f"text {i}" for i in range(n)),
        "bytes": tuple(b"bytes %d" % i for i in range(n)),
        "None and bool": (None, True, False, None) * (n // 4),
        "pair": tuple((i, i) for i in range(n)),
    }
    for name, value in values.items():
        measure(f"encode: {name}", _core.encode, value, 10, n)
        measure(f"decode: {name}", _core.decode, _core.encode(value), 10, n)
    record = {"a": 1, "b": "text"}
    measure("encode: a small dict", _core.encode, record, 500)
    measure("decode: a small dict", _core.decode, _core.encode(record), 500)
    nested = {"a": [1, 2], "b": {"c": "text"}}
    measure("encode: a nested dict, by pickle", _core.encode, nested, 500)
    measure("decode: a nested dict, by pickle", _core.decode, _core.encode(nested), 500)

    # How often threads look for each other is chance. The best of some rounds is what the path costs.
    with WorkerPool(1, start_method="threading") as pool:
        for _ in range(10):
            measure("apply, threading", lambda _: pool.apply(identity, (1,)), None, 30)
    with WorkerPool(1, start_method="threading", keep_alive=True) as pool:
        for _ in range(5):
            measure("map, threading, a task", lambda _: pool.map(identity, range(4000), chunk_size=100), None, 1, 4000)


main()
