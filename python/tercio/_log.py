"""Workers' log records and warnings, on their way to the parent's handlers.

All worker processes write to one pipe of the parent's, in pieces that the kernel takes whole, so none needs a lock that
another one may keep. A thread of the parent's puts the pieces together and hands records and warnings on; it exists
while a pool of processes does. What a worker wrote before it was killed arrives; what it was writing is dropped.

Workers that are threads share the parent's loggers as they are, and need nothing of this.
"""

from __future__ import annotations

import _thread
import itertools
import os
import struct

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

    from tercio._descriptors import Handed

PIECE = 4096  # PIPE_BUF: so much is written at once, or not at all
MOST_PIECES = 1024  # of one message
MOST_OPEN = 256  # messages that are not whole yet
_HEAD = struct.Struct("=iIHH")  # process id, its message's number, size of this piece, FIRST | LAST | MARK
FIRST, LAST, MARK = 1, 2, 4


class _State:
    """The one object of this module that changes."""

    wanted = False
    reader: _Reader | None = None
    pid = 0  # the process that the reader belongs to
    lock = _thread.RLock()  # what the collector finds meanwhile may be a pool, which releases its reader
    handling = _thread.RLock()  # held while a handler runs, and around forks: a copy of its locks would stay locked
    watches_forks = False
    out = -1  # in a worker: the pipe
    numbers = itertools.count()
    show_warning: Any = None  # warnings' own, for when nobody reads any more
    filters: dict[int, Any]  # id -> filter of a logger: the program's, which are the parent's to ask


_state = _State()


def enable_worker_logging() -> None:
    """Forward the log records and warnings of workers to this process's handlers.

    Holds for all pools of the process, and for workers that start from now on. A record goes through the loggers
    here as if it had been made here: levels, filters and handlers are this process's, and fresh workers begin with
    its levels. A filter that a worker adds to a logger is asked there. The record's process id, process name
    (``Worker-0`` …) and thread are the worker's. A warning is shown as this process shows its own, once a place if
    that is the rule. What the tasks of a map call say has been handled when the call returns. A handler must not wait
    for the pool whose worker it hears from.

    Workers that are threads use this process's loggers anyhow.

    Examples
    --------
    >>> import tercio
    >>> tercio.enable_worker_logging()
    """
    _state.wanted = True


# ---- In the parent ----------------------------------------------------------------------------------------------


class _Reader:
    """The pipe, and the thread that reads it as long as somebody uses it."""

    def __init__(self) -> None:
        import threading

        self.users: dict[int, Any] = {}  # id -> weak reference to a session
        self.ending = False
        self.marks: dict[int, _thread.LockType] = {}
        self.numbers = itertools.count()
        self.parts: dict[tuple[int, int], list[bytes]] = {}
        self.rest = b""
        self.lock = _thread.RLock()  # held for a few steps that wait for nothing
        self.closed = False
        self.writers = 0  # that are about to write a mark: the last one closes the sink if the thread has ended
        self.source, self.sink = os.pipe()
        self.thread = threading.Thread(target=self.read, name="tercio-log", daemon=True)
        self.thread.start()

    def mark(self, number: int) -> bool:
        """Write a mark; False if nobody reads any more."""
        with self.lock:
            if self.closed:
                return False
            self.writers += 1
        try:
            os.write(self.sink, _HEAD.pack(0, number, 0, MARK))
            return True
        except BrokenPipeError:  # the thread ended while the pipe was full
            return False
        finally:
            with self.lock:
                self.writers -= 1
                self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.closed and not self.writers:
            os.close(self.sink)

    def wait_for_all(self) -> None:
        """Return when all that was written before has been handled."""
        number = next(self.numbers) & 0xFFFFFFFF
        reached = _thread.allocate_lock()
        reached.acquire()
        self.marks[number] = reached
        try:
            if self.mark(number):
                reached.acquire()
        finally:
            self.marks.pop(number, None)

    def reach(self, number: int) -> None:
        reached = self.marks.pop(number, None)
        if reached is not None:
            reached.release()

    def end(self) -> None:
        """Handle what is there, and end the thread. Nobody writes any more."""
        self.ending = True
        if not self.is_this_thread():
            self.mark(0xFFFFFFFF)
            self.thread.join()

    def is_this_thread(self) -> bool:
        return self.thread.ident == _thread.get_ident()

    def read(self) -> None:
        try:
            while not self.ending:
                self.take(os.read(self.source, 1 << 16))
            os.set_blocking(self.source, False)
            while True:
                self.take(os.read(self.source, 1 << 16))
        except BlockingIOError:
            pass
        finally:
            os.close(self.source)
            with self.lock:
                self.closed = True
                self.close_if_unused()
            for number in list(self.marks):  # that came too late to be read
                self.reach(number)

    def take(self, data: bytes) -> None:
        data = self.rest + data
        at = 0
        while len(data) - at >= _HEAD.size:
            pid, number, size, flags = _HEAD.unpack_from(data, at)
            if len(data) - at < _HEAD.size + size:
                break
            at += _HEAD.size
            self.take_piece(pid, number, flags, data[at : at + size])
            at += size
        self.rest = data[at:]

    def take_piece(self, pid: int, number: int, flags: int, piece: bytes) -> None:
        if flags & MARK:
            self.reach(number)
            return
        key = pid, number
        if flags & FIRST:
            self.parts[key] = []
            if len(self.parts) > MOST_OPEN:  # of workers that were killed in the middle
                del self.parts[next(iter(self.parts))]
        pieces = self.parts.get(key)
        if pieces is None:
            return
        pieces.append(piece)
        if flags & LAST:
            del self.parts[key]
            _handle(b"".join(pieces))


def acquire(user: object) -> None:
    """A pool is about to start worker processes."""
    if not _state.wanted or _state.out >= 0:
        return
    import weakref

    own = weakref.ref(user)
    with _state.lock:
        if _state.pid != os.getpid():
            _state.reader, _state.pid = None, os.getpid()
        _watch_forks()
        reader = None
        while reader is None or reader.ending:  # by a pool that the collector found in between
            reader = _state.reader
            if reader is None:
                reader = _Reader()
            reader.users[id(user)] = own
        _state.reader = reader


def release(user: object) -> None:
    """A pool's workers are gone. What they said has been handled afterwards."""
    reader = _state.reader
    if reader is None or _state.pid != os.getpid():
        return
    with _state.lock:
        reader.users.pop(id(user), None)
        for key, other in list(reader.users.items()):
            if other() is None:
                del reader.users[key]
        last = not reader.users and _state.reader is reader
        if last:
            _state.reader = None
    if last:
        reader.end()
    else:
        wait_for_all()


def wait_for_all() -> None:
    """Return when all that workers said so far has been handled."""
    reader = _state.reader
    if reader is not None and _state.pid == os.getpid() and not reader.is_this_thread():
        reader.wait_for_all()


def n_threads() -> int:
    """How many threads of this process are ours."""
    return int(_state.reader is not None and _state.pid == os.getpid())


def _watch_forks() -> None:
    if not _state.watches_forks:
        # A handler takes logging's lock while ours is held. What is registered last comes first before a fork: ours.
        import logging  # noqa: F401

        _state.watches_forks = True
        os.register_at_fork(
            before=_state.handling.acquire, after_in_parent=_state.handling.release, after_in_child=_after_fork
        )


def _after_fork() -> None:
    _state.handling.release()
    _state.lock = _thread.RLock()  # another thread of the parent may have held it


def _handle(data: bytes) -> None:
    import pickle

    with _state.handling:
        try:
            kind, *what = pickle.loads(data)
            if kind == "record":
                _handle_record(*what)
            else:
                _show_warning(*what)
        except BaseException:  # of a handler, SystemExit too; a record that is lost is not worth the rest
            _report()


def _report() -> None:
    import traceback

    try:
        traceback.print_exc()
    except Exception:  # where errors are shown is closed
        pass


def _handle_record(fields: dict[str, Any], extra: dict[str, tuple[bytes | None, str]]) -> None:
    import logging
    import pickle

    for name, (packed, text) in extra.items():
        try:
            fields[name] = text if packed is None else pickle.loads(packed)
        except Exception:
            fields[name] = text  # its class is known in the worker alone
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


_shown: dict[str, dict[Any, Any]] = {}  # what was shown of each file, for rules such as "once"


def _show_warning(packed: bytes | None, text: str, category: str, filename: str, lineno: int) -> None:
    import pickle
    import warnings

    message: Warning
    try:
        message = pickle.loads(packed or b"")
    except Exception:
        message = RuntimeWarning(f"{category}: {text}")
    try:
        warnings.warn_explicit(message, None, filename, lineno, registry=_shown.setdefault(filename, {}))
    except Warning:  # an error here, but it was none where it could be caught
        warnings.showwarning(message, type(message), filename, lineno)


# ---- What workers are told --------------------------------------------------------------------------------------


def hand(handed: Handed) -> tuple[int, dict[str, int], int] | None:
    """Where fresh workers send their records, as a descriptor handed over, and this process's levels."""
    sink = _state.out
    if sink < 0:
        reader = _state.reader
        if reader is None or _state.pid != os.getpid():
            return None
        sink = reader.sink
    place = handed.add(sink)
    logging: Any = loaded("logging")
    if logging is None:
        return place, {}, 0
    levels = {
        name: logger.level for name, logger in list(logging.root.manager.loggerDict.items()) if hasattr(logger, "level")
    }
    levels["root"] = logging.root.level
    return place, levels, logging.root.manager.disable


# ---- In the worker ----------------------------------------------------------------------------------------------


def inherit() -> None:
    """In a forked worker: the pipe was copied, and so were loggers with their levels."""
    reader = _state.reader
    if reader is not None and _state.pid == os.getppid():
        _state.out = reader.sink
        os.close(reader.source)
    _state.reader = None
    if _state.out >= 0:
        _divert()


def watch(where: tuple[int, dict[str, int], int]) -> None:
    """In a fresh worker: take over the pipe and the levels."""
    from tercio import _descriptors

    place, levels, disabled = where
    _state.out = _descriptors.take(place)
    import logging

    for name, level in levels.items():
        logging.getLogger(None if name == "root" else name).setLevel(level)
    logging.disable(disabled)
    _divert()


def _divert() -> None:
    import logging
    import warnings

    if logging.Logger.handle is not _send_record:
        _state.show_warning = warnings.showwarning
        note_filters()
    _state.numbers = itertools.count()
    logging.Logger.handle = _send_record  # type: ignore[assignment, method-assign]
    warnings.showwarning = _send_warning


def note_filters() -> None:
    """What filters loggers now is the program's: its parent asks it. What comes later is this worker's own."""
    if _state.out < 0:
        return
    import logging

    loggers: list[Any] = [logging.root, *list(logging.root.manager.loggerDict.values())]
    _state.filters = {id(each): each for logger in loggers for each in getattr(logger, "filters", ())}


def _passes(record: logging.LogRecord, filters: list[Any]) -> logging.LogRecord | None:
    """The record, or what a filter made of it."""
    if not filters:
        return record
    import logging

    filterer = logging.Filterer()
    filterer.filters = filters
    passed: Any = filterer.filter(record)
    if not passed:
        return None
    return passed if isinstance(passed, logging.LogRecord) else record


def _send_record(logger: logging.Logger, record: logging.LogRecord) -> None:
    """In place of ``Logger.handle``: each filter is asked once, here or in the parent."""
    if logger.disabled:
        return
    mine = [each for each in logger.filters if id(each) not in _state.filters]
    passed = _passes(record, mine)
    if passed is None or _send_fields(passed):
        return
    passed = _passes(passed, [each for each in logger.filters if id(each) in _state.filters])
    if passed is not None:
        logger.callHandlers(passed)


def _send_fields(record: logging.LogRecord) -> bool:
    import logging
    import pickle

    from tercio import _worker

    fields = dict(record.__dict__)
    try:
        fields["msg"] = record.getMessage()
    except Exception as error:
        fields["msg"] = f"{record.msg!r} with {record.args!r} ({type(error).__name__}: {error})"
    fields["args"] = None
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    fields["exc_info"] = None
    fields["processName"] = f"Worker-{_worker.state.worker_id}"
    own = {*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "taskName"}  # not what a program's factory adds
    extra: dict[str, tuple[bytes | None, str]] = {}
    for name in set(fields) - own:
        value, packed = fields.pop(name), None
        try:
            packed = pickle.dumps(value, protocol=5)
        except Exception:
            pass
        extra[name] = packed, _text(value)
    return _send(("record", fields, extra))


def _send_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    import pickle

    packed = None
    try:
        packed = pickle.dumps(category(message) if isinstance(message, str) else message, protocol=5)
    except Exception:
        pass
    if not _send(("warning", packed, _text(message), category.__name__, filename, lineno)):
        _state.show_warning(message, category, filename, lineno, file, line)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text failed with {type(error).__name__}>"


def _send(message: tuple[Any, ...]) -> bool:
    """Write a message; False if nobody reads any more, or it can't be written."""
    import pickle

    step = PIECE - _HEAD.size
    try:
        try:
            data = pickle.dumps(message, protocol=5)
        except Exception:
            message = _plain(message)
            data = pickle.dumps(message, protocol=5)
        if len(data) > step * MOST_PIECES:
            data = pickle.dumps(_cut(message), protocol=5)
    except Exception:  # it is no error of the program's that it says something
        return False
    pid, number = os.getpid(), next(_state.numbers) & 0xFFFFFFFF
    try:
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            flags = (FIRST if at == 0 else 0) | (LAST if at + step >= len(data) else 0)
            os.write(_state.out, _HEAD.pack(pid, number, len(piece), flags) + piece)
    except OSError:
        return False
    return True


def _plain(message: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of a message that can't be pickled: the same in numbers and text, without what else a record was given."""

    def plain(value: Any) -> Any:
        return value if value is None or type(value) in (bool, int, float, str, bytes) else _text(value)

    kind, what, *rest = message
    if kind == "record":
        return kind, {name: plain(value) for name, value in what.items()}, {}
    return kind, *map(plain, (what, *rest))


def _cut(message: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, what, *rest = message
    if kind == "warning":
        text, *rest = rest
        return kind, None, f"{text[:PIECE]} ... (cut)", *rest
    fields = {name: value for name, value in what.items() if not isinstance(value, str) or len(value) <= PIECE}
    fields["msg"] = f"{what['msg'][:PIECE]} ... (cut)"
    return kind, fields, {}
