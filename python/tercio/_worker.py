"""The worker's side of the package, and what the parent tells a fresh worker about itself.

A worker imports multiprocessing only if something it runs does: that import costs more than everything else it does
to start. When it happens, what multiprocessing believes about the process is put right (see `_dress`).
"""

from __future__ import annotations

import _thread
import marshal
import os
import sys

from tercio import _main
from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


_START_METHODS = ("fork", "spawn", "forkserver")  # multiprocessing's own


class _State:
    """The process as a worker; the one object of this module that changes."""

    worker_id: int | None = None  # None: not a worker process
    daemon = False
    method = ""
    parent_pid = 0
    parent_name = "MainProcess"
    authkey: bytes | None = None
    start_method: str | None = None  # multiprocessing's default in the parent
    tracker: tuple[int, int, str] | None = None  # the resource tracker's pipe and name; see _tracker
    preparing = False  # the main module is being run
    stdin: Any = None  # for the next workers that are forked
    pid = 0


state = _State()


def is_daemon() -> bool:
    """Whether this process must not have children: it is a worker with ``daemon=True``, or multiprocessing's."""
    if state.worker_id is not None and state.pid == os.getpid():
        return state.daemon
    process = loaded("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


def is_preparing() -> bool:
    """Whether this worker is still running the main module, which then must not start a pool of its own."""
    if state.preparing:
        return True
    process = loaded("multiprocessing.process")
    return process is not None and bool(getattr(process.current_process(), "_inheriting", False))


# ---- In the parent ----------------------------------------------------------------------------------------------


def preparation(method: str, shared_objects: object, serializer: str) -> tuple[list[Any], list[int]]:
    """What a fresh worker needs to know, in parts; ``enter`` takes them in.

    Parameters
    ----------
    method : str
        ``"spawn"`` or ``"forkserver"``.
    shared_objects : object
        The pool's; None for none.
    serializer : str
        The pool's.

    Returns
    -------
    list of bytes-like
        The preparation data, then the packed shared objects if there are any.
    list of int
        The descriptors that the workers need beside it.
    """
    from tercio import _command, _descriptors, _ending, _postmortem, _tracker

    handed = _descriptors.Handed()

    _main.alias()
    data: dict[str, Any] = {
        "path": _command.path(),
        "argv": list(sys.argv),
        "directory": _directory(),
        "serializer": serializer,
        "stacks": _postmortem.hand(handed),
        "tracker": _tracker.hand(handed),
        "recursion": sys.getrecursionlimit(),
    }
    if method == "forkserver":
        data["environment"] = {**os.environ}
    log: Any = loaded("tercio._log")
    if log is not None:
        data["log"] = log.hand(handed)
    data.update(_main.describe())
    data.update(_multiprocessing())
    data["additions"] = _ending.additions()
    if "main_path" in data:
        data["main_code"] = _main.compiled(data["main_path"])
    parts: list[Any] = [_dump(data)]
    if shared_objects is not None:
        from tercio._serialize import dump_shared

        parts += dump_shared(shared_objects, serializer, method, handed)
    return parts, handed.fds


def _dump(data: dict[str, Any]) -> bytes:
    # Nearly always it is plain through and through, and then a worker needs no pickle to read it.
    try:
        return b"m" + marshal.dumps(data)
    except ValueError:
        from tercio._pickling import dumps

        return b"p" + dumps(data, protocol=5)


def prepare_fork() -> None:
    """Make here what each forked worker would have to make for itself."""
    if state.stdin is None:
        try:
            state.stdin = _new_stdin()
        except OSError:
            pass  # standard input is closed here; a worker opens its own
    from tercio import _ending

    _ending.prepare_fork()


def _multiprocessing() -> dict[str, Any]:
    told: dict[str, Any] = {}
    process = loaded("multiprocessing.process")
    if process is not None:
        current = process.current_process()
        told["parent_name"] = current.name
        told["authkey"] = bytes(current.authkey)
    elif state.worker_id is not None and state.pid == os.getpid():
        told["parent_name"] = f"Worker-{state.worker_id}"
        told["authkey"] = state.authkey
    context = loaded("multiprocessing.context")
    if context is not None:
        method = context._default_context.get_start_method(allow_none=True)
        # A package's own (joblib's workers are started by "loky") is unknown where that package isn't imported.
        told["start_method"] = method if method in _START_METHODS else None
    return told


# ---- In the worker ----------------------------------------------------------------------------------------------


def enter(
    worker_id: int,
    n_workers: int,
    daemon: bool,
    method: str,
    parent_pid: int,
    parts: Sequence[Any] | None,
    descriptors: Sequence[int],
) -> Any:
    """Make this process a worker. Called once, first of all.

    Parameters
    ----------
    worker_id, n_workers : int
        Which worker of how many.
    daemon : bool
        It must not have children.
    method : str
        How it was started.
    parent_pid : int
        The pool's process.
    parts : sequence of bytes-like, or None
        What ``preparation`` gave; None for a forked worker.
    descriptors : sequence of int
        This worker's copies of those that ``preparation`` gave.

    Returns
    -------
    object
        The shared objects; None under fork, where they are inherited.
    """
    nested = state.worker_id is not None  # forked by a worker: then the parent's name is that worker's
    if nested:
        state.parent_name = f"Worker-{state.worker_id}"
    state.worker_id, state.daemon, state.method = worker_id, daemon, method
    state.parent_pid, state.pid = parent_pid, os.getpid()
    from tercio import _descriptors, _postmortem

    _descriptors.enter(descriptors)
    _leave_parent_behind(method)
    if parts is None:
        _postmortem.inherit()
        log: Any = loaded("tercio._log")
        if log is not None:
            log.inherit()
        if not nested:
            process = loaded("multiprocessing.process")
            state.parent_name = process.current_process().name if process is not None else "MainProcess"
        _dress_all()
        return None

    data = _load(parts[0])
    state.parent_name = data.get("parent_name", "MainProcess")
    state.authkey = data.get("authkey")
    state.start_method = data.get("start_method")
    if data["tracker"] is not None:
        writer, reader, name = data["tracker"]
        state.tracker = (_descriptors.take(writer), _descriptors.take(reader) if reader >= 0 else -1, name)
    if data["stacks"] is not None:
        _postmortem.watch(_descriptors.take(data["stacks"]))
    sys.setrecursionlimit(data["recursion"])
    if "environment" in data:
        _set_environment(data["environment"])
    sys.path[:] = data["path"]
    sys.argv[:] = data["argv"]
    _enter_directory(data["directory"])
    _dress_all()
    if data.get("additions") is not None:
        from tercio import _ending

        _ending.take_additions(data["additions"])
    if data.get("log") is not None:
        from tercio import _log

        _log.watch(data["log"])
    run_main(data)
    if data.get("log") is not None:
        _log.note_filters()
    if len(parts) == 1:
        return None
    from tercio._serialize import load_shared

    return load_shared(parts[1:], data["serializer"])


def _load(packed: Any) -> dict[str, Any]:
    loads: Any = marshal.loads
    if packed[:1] != b"m":
        from tercio._pickling import loads
    data: dict[str, Any] = loads(packed[1:])
    return data


def _leave_parent_behind(method: str) -> None:
    # What a fork copied of the package's own: pools, server, their registration.
    for name in ("_shutdown", "_forkserver"):
        module = loaded(f"tercio.{name}")
        if module is not None:
            module.forget()
    if method == "fork":
        _forget_output()
    if method != "spawn":
        from tercio import _ending

        _ending.begin_fork()
    _close_input()


def _forget_output() -> None:
    # What the parent had written and not flushed when it forked is the parent's to print: let it flow into nothing.
    nothing = -1
    for stream in (sys.stdout, sys.stderr):
        try:
            fd = stream.fileno()
        except (AttributeError, OSError, ValueError):
            continue
        saved = os.dup(fd)
        try:
            if nothing < 0:
                nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, fd)
            try:
                stream.flush()
            finally:
                os.dup2(saved, fd)
        finally:
            os.close(saved)
    if nothing >= 0:
        os.close(nothing)


def _close_input() -> None:
    # Two readers of one terminal or pipe would steal from each other. The descriptor stays taken, or the next file
    # opened would become standard input.
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        if fd != 0:
            os.dup2(fd, 0)
    finally:
        if fd != 0:
            os.close(fd)
    # Nobody has read from that one; in a worker it is used up, and not for the workers that it forks.
    sys.stdin = _new_stdin() if state.stdin is None else state.stdin
    state.stdin = None


def _new_stdin() -> Any:
    return open(0, encoding="utf-8", closefd=False)


def _directory() -> str | None:
    """The current folder; None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _enter_directory(directory: str | None) -> None:
    # A folder that was removed has no name any more, but the parent still stands in it.
    for place in (directory, f"/proc/{state.parent_pid}/cwd"):
        try:
            if place is not None:
                return os.chdir(place)
        except OSError:
            pass
    return None


def _set_environment(environment: dict[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def run_main(data: dict[str, Any]) -> None:
    """Run the parent's main module under the name __mp_main__, so that what it defines can be found by name."""
    wanted = _main.key(data)
    if not any(wanted) or getattr(sys.modules["__main__"], "__tercio_main__", None) == wanted:
        return  # there is none, or a forkserver has it already
    state.preparing = True
    try:
        module = _main.run(data)
    finally:
        state.preparing = False
    module.__dict__["__tercio_main__"] = wanted


# ---- What multiprocessing believes ------------------------------------------------------------------------------


def _dress_all() -> None:
    """Put right what is imported, and see to it that what gets imported later is put right then."""
    waiting = []
    for name, dress in _DRESSERS.items():
        module = loaded(name)
        if module is not None:
            dress(module)
        else:
            waiting.append(name)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting))


def _dress_process(process: Any) -> None:
    import itertools

    old = process.current_process()
    current = process.BaseProcess.__new__(process.BaseProcess)
    config = dict(old._config)
    config["daemon"] = state.daemon
    if state.authkey is not None:
        config["authkey"] = process.AuthenticationString(state.authkey)
    identity = (state.worker_id or 0) + 1
    current.__dict__.update(
        _identity=(*getattr(old, "_identity", ()), identity),
        _config=config,
        _parent_pid=state.parent_pid,
        _parent_name=state.parent_name,
        _popen=None,
        _closed=False,
        _target=None,
        _args=(),
        _kwargs={},
        _name=f"Worker-{state.worker_id}",
    )
    process._current_process = current
    process._children = set()
    process._process_counter = itertools.count(1)
    process._parent_process = _parent_process(process)
    util = loaded("multiprocessing.util")
    if util is not None:
        # Finalizers that a fork copied would end the parent's managers and pools.
        util._finalizer_registry.clear()
        util._run_after_forkers()


def _parent_process(process: Any) -> Any:
    class ParentProcess(process._ParentProcess):  # type: ignore[misc]
        # The descriptor is opened when somebody asks for it, not in every worker.
        _handle = -1

        @property
        def _sentinel(self) -> int:
            if self._handle < 0:
                self._handle = os.pidfd_open(self._pid)
            return self._handle

        @_sentinel.setter
        def _sentinel(self, _: object) -> None:
            pass

        def is_alive(self) -> bool:
            try:
                return os.getppid() == self._pid or bool(super().is_alive())
            except ProcessLookupError:
                return False

    parent = ParentProcess(state.parent_name, state.parent_pid, None)
    if state.authkey is not None:
        parent._config["authkey"] = process.AuthenticationString(state.authkey)
    return parent


def _dress_context(context: Any) -> None:
    if state.start_method is not None:
        context._default_context.set_start_method(state.start_method, force=True)


def _dress_tracker(module: Any) -> None:
    from tercio import _tracker

    _tracker.dress(module)


_DRESSERS = {
    "multiprocessing.process": _dress_process,
    "multiprocessing.context": _dress_context,
    "multiprocessing.resource_tracker": _dress_tracker,
}


def dress_later(name: str) -> None:
    """Put a module right when it is imported, also in a process that is no worker."""
    if not any(isinstance(finder, _Finder) and name in finder.names for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder([name]))


class _Finder:
    """Lets Python's own finders find a module, and has it put right once it has been executed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            if not isinstance(finder, _Finder):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                    return spec
        return None

    def executed(self, module: Any) -> None:
        name = module.__name__
        if name not in self.names:
            return  # another finder has asked for it in between
        self.names.remove(name)
        if not self.names:
            try:
                sys.meta_path.remove(self)
            except ValueError:
                pass
        _DRESSERS[name](module)


class _Loader:
    def __init__(self, loader: Any, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.executed(module)


# ---- The end ----------------------------------------------------------------------------------------------------


def let_go_of_imports() -> None:
    """Release what this thread holds of the import system's locks, when it is in no import any more.

    ``importlib`` takes a lock and then enters the ``try`` that gives it back; what is raised between the two leaves it
    taken. Nothing is imported here: that might wait for another thread, which waits for us.
    """
    imp, bootstrap, me = sys.modules["_imp"], sys.modules["_frozen_importlib"], _thread.get_ident()
    try:
        while True:
            imp.release_lock()
    except RuntimeError:
        pass  # it is not ours
    for reference in list(getattr(bootstrap, "_module_locks", {}).values()):
        lock = reference()
        while lock is not None and getattr(lock, "owner", None) == me:
            lock.release()
    blocked = getattr(bootstrap, "_blocking_on", None) or {}
    if isinstance(blocked, dict):
        blocked.pop(me, None)
    else:  # from Python 3.12 on a list of locks for each thread
        del (blocked.get(me) or [])[:]
