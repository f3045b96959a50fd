"""What a dead worker leaves behind: the stack its crash handler wrote, and what the kernel counted.

The stacks of all workers of this process lie in one anonymous file, a slot a process id. A worker has it open, and a
file of its own that faulthandler writes to when it crashes and that is then copied to its slot. Nothing is written
before, so this costs a descriptor here, two in each worker, and no memory. A worker does not enable faulthandler: that
is the user's to do, for a file of their own.
"""

from __future__ import annotations

import _thread
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio._descriptors import Handed

NAME = "tercio-stacks"
SLOT = 1 << 20  # a dump of one thread is cut by faulthandler at 100 frames: far below this
MOST_READ = 64 << 10
MOST_HELD = 16 << 20  # of dumps that nobody read (deaths that were retried), before all are dropped
SIGKILL = 9
NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL: it can't be executed, nor made so
EINVAL = 22


class _File:
    """The file of the pools of this process; the one object of this module that changes."""

    fd = -1
    pid = 0
    users = 0
    lock = _thread.RLock()  # what the collector or a signal's handler ends meanwhile may be a pool, which releases
    oom_kills: tuple[int, bool] | None = None  # the kernel's count at the first pool's start; see `_oom_kills`
    suspects = 0  # workers that died by SIGKILL since then, of those that were asked about
    ended = 0  # workers of pools that have ended that died by SIGKILL
    cleared = 0  # workers that did, of which is known that it was not for memory


_file = _File()
_users: dict[int, Any] = {}  # id -> weak reference
_gone: list[Any] = []  # users that died without a release, until somebody looks
_worker_fds: tuple[int, ...] = ()  # in a worker: its own file, and its parent's


# ---- In the parent ----------------------------------------------------------------------------------------------


def _nameless_file() -> int:
    try:
        try:
            fd = os.memfd_create(NAME, os.MFD_CLOEXEC | NOEXEC_SEAL)
        except OSError as error:  # before Linux 6.3
            if error.errno != EINVAL:
                raise
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
        # A pool that is collected is noted by C code: in Python's a KeyboardInterrupt could be raised, and lost.
        _users[id(user)] = weakref.ref(user, _gone.append)
        _prune()
        if _file.users > 0 and _file.fd >= 0:
            _file.users = len(_users)
            return
        _file.users = len(_users)
        _file.oom_kills, _file.suspects, _file.pid = _oom_kills(), 0, os.getpid()
        _file.ended, _file.cleared = 0, 0
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


def release(user: object, core: Any = None) -> None:
    """A pool's workers are gone; the last one closes the file."""
    with _file.lock:
        if core is not None:
            _file.ended += _killed(core)
        _prune()
        if _users.pop(id(user), None) is None:
            return
        _file.users = len(_users)
        if _file.users == 0 and _file.fd >= 0:
            os.close(_file.fd)
            _file.fd = -1


def hand(handed: Handed) -> int | None:
    """Hand the file over to fresh workers; None if there is none."""
    return handed.add(_file.fd) if _file.fd >= 0 else None


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


def out_of_memory(signal: int | None, exit_code: int | None) -> tuple[bool | None, str]:
    """Whether the kernel killed a worker for memory, by its own counters alone.

    Parameters
    ----------
    signal, exit_code : int or None
        How the worker ended.

    Returns
    -------
    bool or None
        None: it can't be told.
    str
        Why not, if it is one of several.
    """
    if signal is None and exit_code is None:
        return None, ""
    if signal != SIGKILL:
        return False, ""  # the kernel kills for memory by SIGKILL alone
    with _file.lock:
        cores = [user.core for user in (reference() for reference in list(_users.values())) if user is not None]
        dead = _file.ended + sum(_killed(core) for core in cores)
        before, now = _file.oom_kills, _oom_kills()
        _file.suspects += 1
        if before is None or now is None or before[1] != now[1]:
            return None, ""
        rise = now[0] - before[0]
        if rise == 0:
            # Neither this one nor those before it: the kernel counts first and kills then.
            _file.suspects, _file.cleared = 0, dead
            return False, ""
        if not now[1]:
            return None, ""  # counted for the whole machine: it may have been another's
        dead = _file.ended + sum(_killed(core, dying=True) for core in cores)
        suspects = max(_file.suspects, dead - _file.cleared)
        if rise >= suspects:
            return True, ""
        kills = "1 kill" if rise == 1 else f"{rise} kills"
        return None, f"the kernel counted {kills} for memory while {suspects} workers were killed"


def _killed(core: Any, dying: bool = False) -> int:
    """How many of a pool's workers have died by SIGKILL so far, and not by its own; or are about to."""
    workers = [] if core is None else core.stats()
    return sum(worker["killed"] + (dying and worker["pid"] > 0 and _is_dying(worker["pid"])) for worker in workers)


def _is_dying(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            words = dict(line.split(None, 2)[:2] for line in file if line.startswith(("State:", "SigPnd:", "ShdPnd:")))
    except OSError:
        return True
    pending = int(words.get("ShdPnd:", "0"), 16) | int(words.get("SigPnd:", "0"), 16)
    return words.get("State:") in ("Z", "X") or bool(pending >> (SIGKILL - 1) & 1)


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
    global _worker_fds
    of_parent, copied = _file.fd, _worker_fds
    _file.lock = _thread.RLock()  # another thread of the parent may have held it
    _users.clear()
    _gone.clear()
    _file.fd, _file.users, _worker_fds = -1, 0, ()
    if of_parent >= 0:
        watch(of_parent)
    for fd in copied:
        os.close(fd)


def watch(fd: int) -> None:
    """Have this worker's crash written where its parent reads it. Never raises.

    Parameters
    ----------
    fd : int
        The parent's file, which belongs to this module from now on.
    """
    global _worker_fds
    own = -1
    try:
        import faulthandler

        from tercio import _core

        own = _nameless_file()
        at = os.getpid() * SLOT
        if os.fstat(fd).st_blocks * 512 > MOST_HELD:
            os.ftruncate(fd, 0)
        elif os.pread(fd, 1, at) not in (b"", b"\0"):
            os.pwrite(fd, bytes(MOST_READ), at)  # of an earlier worker of this number
        faulthandler.register(_core.STACK_SIGNAL, file=own, all_threads=False)
        _core.catch_crashes(own, fd, at, MOST_READ)
        _worker_fds = own, fd
    except (ImportError, OSError, ValueError, RuntimeError):
        for each in (own, fd):
            if each >= 0:
                os.close(each)
