"""What a dead worker leaves behind: the stack its crash handler wrote, and what the kernel counted.

The stacks of all workers of this process lie in one anonymous file, a slot a process id. A worker has it open for
faulthandler alone and writes only when it crashes, so it costs a descriptor here, one in each worker, and no memory
before the first crash.
"""

from __future__ import annotations

import _thread
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "tercio-stacks"
SLOT = 1 << 20  # a dump of one thread is cut by faulthandler at 100 frames: far below this
MOST_READ = 64 << 10
MOST_HELD = 16 << 20  # of dumps that nobody read (deaths that were retried), before all are dropped
SIGKILL = 9


class _File:
    """The file of the pools of this process; the one object of this module that changes."""

    fd = -1
    pid = 0
    users = 0
    lock = _thread.allocate_lock()
    oom_kills: tuple[int, bool] | None = None  # the kernel's count at the first pool's start; see `_oom_kills`
    suspects = 0  # workers that died by SIGKILL since then


_file = _File()
_users: dict[int, Any] = {}  # id -> weak reference
_gone: list[Any] = []  # users that died without a release, until somebody looks
_worker_fd = -1  # in a worker: its own way into its parent's file


# ---- In the parent ----------------------------------------------------------------------------------------------


def _nameless_file() -> int:
    try:
        fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
        os.fchmod(fd, 0o600)
        return fd
    except (AttributeError, OSError):  # an older kernel, or a sandbox
        return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)


def acquire(user: object) -> None:
    """Make the file, for a pool that is about to start workers. Never raises: without it there are no stacks."""
    import weakref

    try:
        import faulthandler  # noqa: F401 - for children that are forked, so that each finds it imported
    except ImportError:
        pass
    with _file.lock:
        # Who goes without a word is noted by C code: in Python's a KeyboardInterrupt could be raised, and lost.
        _users[id(user)] = weakref.ref(user, _gone.append)
        _prune()
        if _file.users > 0 and _file.fd >= 0:
            _file.users = len(_users)
            return
        _file.users = len(_users)
        _file.oom_kills, _file.suspects, _file.pid = _oom_kills(), 0, os.getpid()
        try:
            _file.fd = _nameless_file()
        except OSError:
            _file.fd = -1


def _prune() -> None:
    while _gone:
        reference = _gone.pop()
        for key, user in list(_users.items()):
            if user is reference:
                del _users[key]


def release(user: object) -> None:
    """A pool's workers are gone; the last one closes the file."""
    with _file.lock:
        _prune()
        if _users.pop(id(user), None) is None:
            return
        _file.users = len(_users)
        if _file.users == 0 and _file.fd >= 0:
            os.close(_file.fd)
            _file.fd = -1


def where() -> tuple[int, int] | None:
    """The process that holds the file and its descriptor there, for fresh workers."""
    return (_file.pid, _file.fd) if _file.fd >= 0 else None


def stack(pid: int) -> str:
    """What worker `pid` wrote when it crashed; empty if it didn't."""
    if _file.fd < 0 or pid <= 0:
        return ""
    try:
        data = os.pread(_file.fd, MOST_READ, pid * SLOT)
    except OSError:
        return ""
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    return text.partition("\n\nExtension modules")[0].strip()


def out_of_memory(signal: int | None, exit_code: int | None) -> bool | None:
    """Whether the kernel killed a worker for memory, by its own counters alone.

    Parameters
    ----------
    signal, exit_code : int or None
        How the worker ended.

    Returns
    -------
    bool or None
        None: it can't be told.
    """
    if signal is None and exit_code is None:
        return None
    if signal != SIGKILL:
        return False  # the kernel kills for memory by SIGKILL alone
    with _file.lock:
        before, now = _file.oom_kills, _oom_kills()
        _file.suspects += 1
        if before is None or now is None or before[1] != now[1]:
            return None
        rise = now[0] - before[0]
        if rise == 0:
            _file.suspects = 0  # neither this one nor those before it: the kernel counts first and kills then
            return False
        # Counted for the whole machine, or fewer than died: it may have been another's.
        return True if now[1] and rise >= _file.suspects else None


def _oom_kills() -> tuple[int, bool] | None:
    """Processes the kernel has killed for memory, and whether that counts our control group alone."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, ValueError):
        groups = []
    for number, controllers, path in groups:
        if number == "0":
            names = (f"/sys/fs/cgroup{path}/memory.events.local", f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            # A container sees its own group at the root of what is mounted.
            names = (f"/sys/fs/cgroup/memory{path}/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control")
        else:
            continue
        for name in names:
            count = _counter(name)
            if count is not None:
                return count, True
    count = _counter("/proc/vmstat")
    return None if count is None else (count, False)


def _counter(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except (OSError, ValueError):
        pass
    return None


# ---- In the worker ----------------------------------------------------------------------------------------------


def inherit() -> None:
    """In a forked worker: what the fork copied is its parent's; the worker has its crash written there."""
    global _worker_fd
    copied = [fd for fd in (_file.fd, _worker_fd) if fd >= 0]
    place = (os.getpid(), _file.fd) if _file.fd >= 0 else None
    _file.lock = _thread.allocate_lock()  # another thread of the parent may have held it
    _users.clear()
    _gone.clear()
    _file.fd, _file.users, _worker_fd = -1, 0, -1
    watch(place)
    for fd in copied:
        os.close(fd)


def watch(place: tuple[int, int] | None) -> None:
    """Have this worker's crash written where its parent reads it. Never raises.

    Parameters
    ----------
    place : tuple of int, or None
        The process that holds the file, and its descriptor there; None: no file.
    """
    global _worker_fd
    if place is None:
        return
    fd = -1
    try:
        import faulthandler

        # A description of our own: the parent's is shared with our siblings, offset and all.
        fd = os.open(f"/proc/{place[0]}/fd/{place[1]}", os.O_RDWR | os.O_CLOEXEC)
        if place[0] != os.getpid() and not os.readlink(f"/proc/self/fd/{fd}").startswith(
            (f"/memfd:{NAME}", "/dev/shm/#")
        ):
            raise OSError("the pool is gone, and its number leads to another file")
        at = os.getpid() * SLOT
        if os.fstat(fd).st_blocks * 512 > MOST_HELD:
            os.ftruncate(fd, 0)
        elif os.pread(fd, 1, at) not in (b"", b"\0"):
            os.pwrite(fd, bytes(MOST_READ), at)  # of an earlier worker of this number
        os.lseek(fd, at, os.SEEK_SET)
        faulthandler.enable(file=fd, all_threads=False)
        _worker_fd = fd
    except (ImportError, OSError, ValueError, RuntimeError):
        if fd >= 0:
            os.close(fd)
