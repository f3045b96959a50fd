"""What a map call tells the dashboard: one request that lasts as long as the call, a line of JSON a message.

Sending never waits: what the socket doesn't take at once is sent with a later message, and while something is left
over new ones are dropped, for the next one says it all anew. When this process is killed the connection ends without
an end of the call, and that is how the server knows.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from tercio.dashboard import _address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from tercio.pool import WorkerPool

DONE_EVERY = 0.15  # seconds between two messages: a page hears five a second, and a bar has ten
WORKERS_EVERY = 0.5  # seconds between two looks at the workers
PATIENCE = 5.0  # seconds for a server that doesn't answer; after that this process reports no more
LONGEST_TEXT = 20_000
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_given_up: set[str] = set()


def open_report(pool: WorkerPool, func: Any, total: int | None, name: str) -> Report | None:
    """A report of a call that begins, if a dashboard is connected and answers."""
    from tercio.dashboard import get_stacklevel

    text = _address.address()
    place = _address.parse(text)
    if place is None or text in _given_up:
        return None
    try:
        report = Report(place, _address.read_token(place[1]), pool)
        report.begin(func, total, name, get_stacklevel())
    except OSError as error:
        _give_up(text, error)
        return None
    return report


def _give_up(text: str, error: OSError) -> None:
    _given_up.add(text)
    from tercio._warn import warn

    warn(f"The dashboard at {text} can't be reached ({error}); this program's calls are not shown", RuntimeWarning)


class Report:
    """See the module.

    Parameters
    ----------
    place : tuple of str and int
        The server's host and port.
    token : str
        What it lets us in for.
    pool : WorkerPool
        Whose call it is.
    """

    def __init__(self, place: tuple[str, int], token: str, pool: WorkerPool) -> None:
        self._pool = pool
        self._pid = os.getpid()
        self._rest = b""
        self._done = -1
        self._done_at = self._workers_at = 0.0
        self._socket = socket.create_connection(place, timeout=PATIENCE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _address.BUFFER)
        host = f"[{place[0]}]" if ":" in place[0] else place[0]
        self._rest = (
            f"POST /api/report HTTP/1.1\r\nHost: {host}:{place[1]}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()
        self._socket.setblocking(False)

    def begin(self, func: Any, total: int | None, name: str, stacklevel: int) -> None:
        """Say what is called, and from where."""
        params = self._pool.pool_params
        self._send(
            {
                "start": {
                    "call": name,
                    "total": total,
                    "time": time.time(),
                    "pid": self._pid,
                    "user": user(),
                    "program": " ".join(sys.argv)[:1000],
                    "start_method": params.start_method,
                    "n_jobs": params.n_jobs,
                    "function": describe(func),
                    "caller": caller(stacklevel),
                }
            }
        )

    def update(self, done: int) -> None:
        """Say how much is done, and now and then what the workers do."""
        if not self._flush():
            return
        now = time.monotonic()
        messages: list[dict[str, Any]] = []
        with_workers = now - self._workers_at >= WORKERS_EVERY
        if done != self._done and (with_workers or now - self._done_at >= DONE_EVERY):
            self._done, self._done_at = done, now
            messages.append({"done": done})
        if with_workers:
            self._workers_at = now
            messages.append({"workers": self._pool._session.stats()})  # a line of its own, that nobody may ever read
        if messages:
            self._send(*messages)

    def close(self, done: int, error: BaseException | None) -> None:
        """Say how it ended, and wait until the server has read it."""
        if os.getpid() != self._pid:
            self._socket.close()
            return
        end: dict[str, Any] = {"state": "done", "time": time.time()}
        if isinstance(error, GeneratorExit):
            end["state"] = "closed"
        elif error is not None:
            end["state"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            end["error"] = f"{type(error).__name__}: {error}"[:LONGEST_TEXT]
            end["traceback"] = trace_of(error)[-LONGEST_TEXT:]
        message = {"done": done, "workers": self._pool._session.stats(), "end": end}
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.sendall(self._rest + chunk(message) + b"0\r\n\r\n")
            answer = self._socket.recv(100)
            if b" 204 " not in answer:
                raise ConnectionError(answer.partition(b"\r\n")[0].decode("latin-1") or "it hung up")
        except OSError as problem:
            _give_up(_address.address(), problem)
        finally:
            self._socket.close()

    def _send(self, *messages: dict[str, Any]) -> None:
        self._rest += chunk(*messages)
        self._flush()

    def _flush(self) -> bool:
        while self._rest:
            try:
                sent = self._socket.send(self._rest)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._rest = b""  # close() finds out, and tells
                return False
            self._rest = self._rest[sent:]
        return True


def chunk(*messages: dict[str, Any]) -> bytes:
    """Messages as a chunk of the request."""
    lines = b"".join(json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in messages)
    return b"%x\r\n%s\r\n" % (len(lines), lines)


def trace_of(error: BaseException) -> str:
    """Where it went wrong in the user's code: in the worker, or in what this process called for its tasks.

    Our own frames help nobody; an error that has no others (a worker that was killed) has no traceback here.
    """
    import traceback

    from tercio.exception import RemoteTraceback, WorkerDiedError

    if isinstance(error.__cause__, RemoteTraceback):
        return str(error.__cause__)
    if isinstance(error, WorkerDiedError):
        return error.stack
    frames = traceback.extract_tb(error.__traceback__)
    if all(frame.filename.startswith(HOME) for frame in frames):
        return ""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def user() -> str:
    """Who runs this program."""
    import getpass

    try:
        return getpass.getuser()
    except Exception:
        return str(os.getuid())


def describe(func: Any) -> dict[str, Any]:
    """What people want to know of a function. What can't be found out is left out."""
    import inspect

    from tercio._errors import name_of

    about: dict[str, Any] = {"name": name_of(func)}
    inner = inspect.unwrap(getattr(func, "func", func))
    for key, find in (
        ("signature", lambda: str(inspect.signature(func))),
        ("doc", lambda: inspect.getdoc(inner)),
        ("file", lambda: inspect.getsourcefile(inner)),
        ("line", lambda: inspect.getsourcelines(inner)[1]),
    ):
        try:
            value = find()
        except Exception:
            continue  # builtins have neither source nor, some of them, a signature
        if value is not None:
            about[key] = value if isinstance(value, int) else str(value)[:LONGEST_TEXT]
    return about


def caller(stacklevel: int) -> dict[str, Any]:
    """The place outside this package that a call came from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(HOME):
        frame = frame.f_back
    for _ in range(stacklevel - 1):
        if frame is None or frame.f_back is None:
            break
        frame = frame.f_back
    if frame is None:
        return {}
    import linecache

    code = frame.f_code
    text = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return {"file": code.co_filename, "line": frame.f_lineno, "function": code.co_name, "text": text[:500]}
