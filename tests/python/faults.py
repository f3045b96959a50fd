"""Functions that do what functions should not, for workers to look up by name."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

ENDS = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "stopped", "exit 0", "exit 3", "abort", "null")


def end(how):
    """End this process in one of the ways that no worker recovers from."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
        time.sleep(60)
    elif how == "stopped":  # stopped first: the kill has to reach a process that runs nothing
        pid = os.getpid()
        if os.fork() == 0:
            os.setsid()  # out of the group that goes with the worker
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        time.sleep(60)
    elif how.startswith("exit"):
        os._exit(int(how[5:]))
    elif how == "abort":
        os.abort()
    elif how == "null":
        ctypes.string_at(0)


def once(marker):
    """Whether this is the first call, of all processes, with that name of a file."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def end_at(value, bad, how):
    if value == bad:
        end(how)
    return value


def end_once(value, folder, how):
    if how and once(os.path.join(folder, str(value))):
        end(how)
    return value, how


def end_always(value, folder):
    """Counts its tries as files."""
    os.close(os.open(os.path.join(folder, f"{value}-{os.getpid()}"), os.O_CREAT))
    end("SIGKILL")


def array_or_end(value, folder, how):
    import numpy

    if how and once(os.path.join(folder, str(value))):
        end(how)
    return numpy.full(200_000, value)


def deep(n, how):
    if n == 0:
        end(how)
    return deep(n - 1, how) + 1


def sum_of_pool(values, folder, how, method):
    """A nested pool in which one task ends its worker once."""
    from tercio import WorkerPool

    with WorkerPool(2, start_method=method) as pool:
        found = pool.map(
            end_once,
            [(value, folder, how if value == values[1] else "") for value in values],
            chunk_size=1,
            on_worker_death="retry",
        )
    return sum(value for value, _ in found)


def identity(value):
    return value


def slowly(value, seconds):
    time.sleep(seconds)
    return value


def pid_of(_):
    return os.getpid()


def note(worker_id, folder, text):
    with open(os.path.join(folder, f"{worker_id}-{os.getpid()}"), "a", encoding="utf-8") as file:
        file.write(text + "\n")


# ---- What can't be pickled --------------------------------------------------------------------------------------


class Refuses:
    """Says no in the method of that name, by raising or by calling itself for ever."""

    def __init__(self, method, how):
        self.how = how
        self.method = method

    def _refuse(self, method):
        if self.method != method:
            return
        if self.how == "recurse":
            self._refuse(method)
        raise LookupError(f"no {method}")

    def __reduce__(self):
        self._refuse("reduce")
        return Refuses, (self.method, self.how)

    def __getstate__(self):
        self._refuse("getstate")
        return self.__dict__

    def __repr__(self):
        self._refuse("repr")
        return "Refuses()"

    def __eq__(self, other):
        self._refuse("eq")
        return self is other

    __hash__ = None


class Getstate(Refuses):
    __reduce__ = object.__reduce__


class Reloads:
    """Can be sent and not be received."""

    def __reduce__(self):
        return _refuse_to_load, ()


def _refuse_to_load():
    raise LookupError("no load")


class Dies:
    """Raises when it is forgotten."""

    def __del__(self):
        raise LookupError("no del")


class Kills:
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (3,)


def bad_result(kind, *args):
    return {"refuses": Refuses, "getstate": Getstate, "reloads": Reloads, "lambda": lambda: lambda: 0}[kind](*args)


def bad_result_at(value, bad, kind, *args):
    return bad_result(kind, *args) if value == bad else value


def type_name(value):
    return type(value).__name__


def raise_with(value):
    raise ValueError("holds", value)


class Demands(Exception):
    """Needs arguments that its args don't hold, and says so late."""

    def __init__(self, first, *, second):
        super().__init__()
        self.first, self.second = first, second


class BadText(Exception):
    def __str__(self):
        raise LookupError("no str")

    __repr__ = __str__


def raise_odd(kind):
    if kind == "demands":
        raise Demands(1, second=threading.Lock())
    if kind == "text":
        raise BadText(1)
    if kind == "holds":
        raise ValueError(Refuses("reduce", "recurse"))
    if kind == "note":
        error = ValueError(1)
        error.__notes__ = [Refuses("repr", "raise")]
        raise error
    if kind == "cycle":
        error, other = ValueError(1), ValueError(2)
        error.__cause__, other.__cause__ = other, error
        raise error
    if kind == "class":

        class Local(Exception):
            pass

        raise Local("mine")
    if kind == "recursion":
        raise_odd(kind)
    if kind == "memory":
        raise MemoryError
    if kind == "stop":
        raise StopIteration(3)
    if kind == "exit":
        raise GeneratorExit


def lock_of(_=None):
    return threading.Lock()


def print_and_log(value):
    import logging
    import sys

    print(f"out {value}")
    sys.stderr.write(f"err {value}\n")
    logging.getLogger("faults").warning("log %s", value)
    return value


def init_demands():
    raise_odd("demands")


def init_text():
    raise_odd("text")


def init_holds():
    raise_odd("holds")


def init_recursion():
    init_recursion()


def init_exit():
    raise SystemExit("mine")


def block(*_):
    while True:
        time.sleep(60)


def use_pool(pool):
    return pool.map(identity, [1])


def close_all_descriptors(value):
    os.closerange(3, 1000)
    return value


class Ender:
    """Ends a pool when the one with a certain number is unpickled in the parent."""

    pool = None  # the parent's

    def __init__(self, number, ends):
        self.number, self.ends = number, ends

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.ends and Ender.pool is not None:
            Ender.pool.terminate()


def make_ender(number, ends):
    return Ender(number, number == ends)


def sleep_in_steps(seconds):
    """Ends soon when it is interrupted, in a thread too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


def size_of_shared(shared, more=0):
    return len(shared) + more
