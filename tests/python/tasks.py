"""Functions that workers look up by name."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time


def identity(value):
    return value


def double(value):
    return value * 2


def everything(*args, **kwargs):
    return args, kwargs


def add(a, b=10):
    return a + b


def where_am_i(_):
    return os.getpid()


def fail(value):
    raise ValueError("no good", value)


def fail_at(value, bad):
    if value == bad:
        raise ValueError("no good", value)
    return value


def reciprocal(value):
    return 1 / value


def slowly(value, seconds=0.05):
    time.sleep(seconds)
    return value


def signal_thread(pid, thread):
    """Send SIGUSR1 to a process; if it is this one, to that thread."""
    if pid == os.getpid():
        signal.pthread_kill(thread, signal.SIGUSR1)
    else:
        os.kill(pid, signal.SIGUSR1)


def signal_and_stay(pid, thread, seconds, *_):
    signal_thread(pid, thread)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)  # a thread is interrupted between two of these


def mark_and_stay(marker, seconds):
    """Make a file and work for as long as that, if nobody interrupts it."""
    with open(marker, "w"):
        pass
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return marker


def signal_until_handled(pid, thread, folder, *_):
    """Return once the handler has made a file for this signal."""
    there = len(os.listdir(folder))
    signal_thread(pid, thread)
    while len(os.listdir(folder)) == there:
        time.sleep(0.001)


def loop_for_ever(_):
    while True:
        pass


def die(value):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(value, bad):
    if value == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def die_once(value, marker):
    """Kills its worker unless the file is there already."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def leave_with(code):
    os._exit(code)


def exit_with(code):
    sys.exit(code)


def interrupt(_):
    raise KeyboardInterrupt("mine")


def unpicklable(_):
    return lambda: None


class Picky(Exception):
    """Its constructor needs what args doesn't hold."""

    def __init__(self, code, detail):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


def raise_picky(value):
    raise Picky(value, {"why": "because"})


def raise_unpicklable(value):
    error = ValueError("holds a lock")
    error.lock = threading.Lock()
    raise error


def raise_chained(value):
    try:
        raise KeyError("first")
    except KeyError as first:
        raise RuntimeError("second") from first


def raise_os_error(path):
    with open(path):
        pass


def validate(text):
    import pydantic

    return pydantic.TypeAdapter(int).validate_python(text)


def raise_decode(data):
    return data.decode("ascii")


def raise_noted(value):
    error = ValueError("noted")
    error.add_note("a note")
    raise error


def raise_group(value):
    raise ExceptionGroup("several", [ValueError(1), Picky(2, "x")])  # noqa: F821 - 3.11 and later


def with_state(state, value):
    state["n"] = state.get("n", 0) + 1
    return state["n"]


def init_state(state):
    state["n"] = 100


def exit_state(state):
    return state.get("n", 0)


def exit_constant():
    return "bye"


def init_fails():
    raise LookupError("no init")


def exit_fails():
    raise LookupError("no exit")


def all_arguments(worker_id, shared, state, value):
    return worker_id, shared, type(state).__name__, value


def shared_and_value(shared, value):
    return shared, value


def shared_total(shared, value):
    return float(shared.sum()) + value


def write_shared(shared, value):
    shared[0] = 1000.0 + value
    return float(shared[0])


def locked_increment(shared, _):
    lock, counter = shared
    with lock:
        counter.value += 1
    return


def process_facts(_):
    import multiprocessing

    process = multiprocessing.current_process()
    return process.name, process.daemon, multiprocessing.parent_process().pid


def start_child(_):
    import multiprocessing

    child = multiprocessing.Process(target=print)
    child.start()
    child.join()


def nested(values, method):
    from tercio import WorkerPool

    with WorkerPool(2, start_method=method) as pool:
        return pool.map(double, values)


def array_sum(rows):
    return rows.sum()


def array_double(rows):
    return rows * 2


def environment(name):
    return os.environ.get(name), os.getcwd()


def append_to(box, value):
    box.append(value)


def wait_for_all(barrier, value):
    barrier.wait(20)
    return value


def affinity(_):
    return os.sched_getaffinity(0)


class Counter:
    base = 0

    def plus(self, value):
        return self.base + value


# ---- Arrays: numpy is imported by who uses these, so that other tests' workers start light --------------------------


def checksum(value):
    import zlib

    import numpy as np

    if isinstance(value, np.ndarray):
        value = repr(value.tolist()) if value.dtype == object else np.ascontiguousarray(value).tobytes()
    return zlib.crc32(value.encode() if isinstance(value, str) else bytes(value))


def array_with_sum(value, name):
    return value, checksum(value)


def array_set_first(value):
    value[0] = -1
    return value


def array_set_first_in(value):
    value["a"][0][0] = -1
    return value


def array_by_name(a, b):
    return a * b


def array_of(i):
    import numpy as np

    return np.full(20_000, float(i))


def array_of_mb(i, megabytes):
    import numpy as np

    return np.full(megabytes << 17, float(i))


def array_or_die(value, i):
    if i in (3, 8):
        os.kill(os.getpid(), signal.SIGKILL)
    return value
