"""What the server knows of the calls: taken in from reporters, kept within bounds, handed to pages as changes.

Everything that reporters send is looked at field by field; what has another type than it should is left out.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_RUNS = 500  # ended ones are forgotten, oldest first, to stay under it
MOST_POINTS = 240  # of a run's throughput
MOST_WORKERS = 1024
SHORTEST_STEP = 0.5  # seconds between two points, at first

# What only the page that shows a run needs to know of it; a list of hundreds is told the rest.
HEAVY = frozenset(
    ("call", "caller", "error", "function", "n_jobs", "pid", "points", "program", "slowest", "start_method",
     "traceback", "user", "workers")
)  # fmt: skip
RECENT = 10.0  # seconds that a running call's rate is of

STATES = ("none", "start", "init", "wait", "work", "exit", "dead")
ENDS = ("done", "failed", "interrupted", "closed")
WORKER_NUMBERS = ("worker", "pid", "tasks", "restarts", "start", "init", "wait", "work", "exit")


def text(value: Any, most: int = 20_000) -> str:
    """A text, however it was sent."""
    return value[:most] if isinstance(value, str) else ""


def number(value: Any) -> float | int | None:
    """A number that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e300 else None  # not NaN nor an infinity


def place(value: Any, *names: str) -> dict[str, Any]:
    """A function, or where it was called: texts and a line."""
    given = value if isinstance(value, dict) else {}
    found: dict[str, Any] = {name: text(given.get(name)) for name in names}
    line = number(given.get("line"))
    return {**found, "line": int(line) if line is not None else None}


def worker(value: Any) -> dict[str, Any] | None:
    """What one worker does."""
    if not isinstance(value, dict):
        return None
    state = value.get("state")
    found: dict[str, Any] = {"state": state if state in STATES else "none"}
    for name in WORKER_NUMBERS:
        found[name] = number(value.get(name)) or 0
    found["died"] = text(value.get("died"), 40)
    return found


def unpacked(line: bytes) -> list[Any] | None:
    """What workers do, of a line that nobody has read yet; None if it says nothing."""
    try:
        found = json.loads(line)["workers"]
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def slowest(workers: list[Any]) -> list[tuple[float, str]]:
    """The longest tasks of all workers."""
    found = []
    for each in workers:
        for entry in (each.get("longest") or ()) if isinstance(each, dict) else ():
            if isinstance(entry, (list, tuple)) and len(entry) == 3 and number(entry[0]) is not None:
                found.append((float(entry[0]), text(entry[2], 500)))
    return sorted(found, reverse=True)[:5]


class Run:
    """One call. `changed` holds the names of the fields that pages have not seen, for each page its own set.

    What workers do comes twice a second from each call, and one of them is looked at: it is kept as it came, as a line
    of JSON, until then.
    """

    def __init__(self, number_: int, start: dict[str, Any]) -> None:
        total = number(start.get("total"))
        self.number = number_
        function = place(start.get("function"), "name", "signature", "doc", "file")
        self._workers: list[Any] | bytes | None = None  # as they came, when they were not looked at since
        self._fields: dict[str, Any] = {
            "id": number_,
            "name": function["name"][:200],
            "state": "running",
            "done": 0,
            "total": int(total) if total is not None else None,
            "begun": number(start.get("time")) or time.time(),
            "ended": None,
            "call": text(start.get("call"), 100),
            "pid": int(number(start.get("pid")) or 0),
            "user": text(start.get("user"), 100),
            "program": text(start.get("program"), 1000),
            "start_method": text(start.get("start_method"), 100),
            "n_jobs": int(number(start.get("n_jobs")) or 0),
            "function": function,
            "caller": place(start.get("caller"), "function", "file", "text"),
            "workers": [],
            "slowest": [],
            "points": [[0, 0]],
            "rate": None,
            "error": "",
            "traceback": "",
        }
        self._clock = time.monotonic()
        self._step = SHORTEST_STEP

    @property
    def fields(self) -> dict[str, Any]:
        """All that is known of it."""
        came, self._workers = self._workers, None
        given = unpacked(came) if isinstance(came, bytes) else came
        if given is not None:
            given = given[:MOST_WORKERS]
            self._fields["workers"] = [found for found in map(worker, given) if found is not None]
            self._fields["slowest"] = slowest(given) or self._fields["slowest"]
        return self._fields

    @property
    def names(self) -> set[str]:
        """The names of its fields."""
        return set(self._fields)

    def some(self, names: list[str]) -> dict[str, Any]:
        """Some of its fields."""
        fields = self._fields if HEAVY.isdisjoint(names) else self.fields
        return {name: fields[name] for name in names}

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return bool(self._fields["state"] != "running")

    def take(self, message: dict[str, Any]) -> set[str]:
        """Take a message in; returns the names of the fields that it changed."""
        changed = set()
        done = number(message.get("done"))
        if done is not None and done != self._fields["done"]:
            self._fields["done"] = int(done)
            changed.add("done")
        if isinstance(message.get("workers"), (bytes, list)):
            self._workers = message["workers"]
            changed |= {"workers", "slowest"}
        if isinstance(message.get("end"), dict):
            end = message["end"]
            state = end.get("state")
            self.end(state if state in ENDS else "done", text(end.get("error")), text(end.get("traceback")))
            self.fields["ended"] = number(end.get("time")) or time.time()
            changed |= {"state", "ended", "error", "traceback", "workers"}
        if self._note_point(self.is_over):
            changed |= {"points", "rate"}
        return changed

    def end(self, state: str, error: str = "", traceback: str = "") -> None:
        """Note how it ended. What its workers did last stays to be seen, but none of them works any more."""
        self.fields.update(state=state, ended=time.time(), error=error, traceback=traceback)
        for each in self.fields["workers"]:
            if each["state"] != "dead":
                each["state"] = "none"

    def _note_point(self, last: bool) -> bool:
        points = self._fields["points"]
        now = round(time.monotonic() - self._clock, 3)
        if now - points[-1][0] < self._step and not (last and now > points[-1][0]):
            return False
        if now - points[-1][0] < self._step / 2 and len(points) > 1:
            del points[-1]  # the end comes right behind it: the speed in between would be anything
        points.append([now, self._fields["done"]])
        if len(points) > MOST_POINTS:
            del points[1:-1:2]
            self._step *= 2
        self._fields["rate"] = self._rate()
        return True

    def _rate(self) -> float | None:
        """Tasks a second: of late while it runs, over all when it is over."""
        points = self._fields["points"]
        now, done = points[-1]
        first = 0
        if not self.is_over:
            first = next((at for at in range(len(points) - 1, 0, -1) if now - points[at][0] >= RECENT), 0)
        passed = now - points[first][0]
        return float(f"{(done - points[first][1]) / passed:.4g}") if passed > 0 else None


class Runs:
    """All calls, and the pages that watch them."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.pages: set[Page] = set()  # those that watch now
        self.is_over = False
        self._last = 0

    def begin(self, start: dict[str, Any]) -> Run:
        """A call that begins."""
        self._last += 1
        run = self.runs[self._last] = Run(self._last, start)
        self._tell(run, run.names)
        if len(self.runs) > MOST_RUNS:
            for old in [each for each in self.runs.values() if each.is_over][: len(self.runs) - MOST_RUNS]:
                del self.runs[old.number]
                for page in self.pages:
                    page.forget(old.number)
        return run

    def take(self, run: Run, message: dict[str, Any]) -> None:
        """A message of a call."""
        self._tell(run, run.take(message))

    def lose(self, run: Run) -> None:
        """A call whose program is gone without a word."""
        run.end("lost", "The program ended, or was killed, without saying how the call went.")
        self._tell(run, {"state", "ended", "error", "workers"})

    def close(self) -> None:
        """The server ends: no page is told any more. May be called in a signal handler."""
        self.is_over = True
        for page in list(self.pages):
            page.close()

    def _tell(self, run: Run, changed: set[str]) -> None:
        if changed:
            for page in self.pages:
                page.note(run.number, changed)


class Page:
    """A browser that watches. It holds names of what changed and nothing else, so a slow one costs nothing.

    It is told of all runs what a list shows, and everything of the one that it shows.
    """

    def __init__(self, runs: Runs) -> None:
        self.key = secrets.token_urlsafe(16)
        self._runs = runs
        self._watched: int | None = None
        self._changed: dict[int, set[str]] = {number_: run.names - HEAVY for number_, run in runs.runs.items()}
        self._gone: list[int] = []
        self._due = asyncio.Event()  # there is something to tell, and now is the time
        self._due.set()
        self._resting: asyncio.TimerHandle | None = None
        self._is_new = True
        self._is_over = runs.is_over

    def note(self, number_: int, changed: set[str]) -> None:
        """Something changed."""
        if number_ != self._watched:
            changed = changed - HEAVY
        if changed:
            self._changed.setdefault(number_, set()).update(changed)
            self._tell()

    def forget(self, number_: int) -> None:
        """A run is no longer kept."""
        self._changed.pop(number_, None)
        self._gone.append(number_)
        self._tell()

    def watch(self, number_: int | None) -> None:
        """Tell everything of this run from now on."""
        before = self._changed.get(self._watched) if self._watched is not None else None
        if before is not None:
            before -= HEAVY
        self._watched = number_
        if number_ in self._runs.runs:
            self.note(number_, self._runs.runs[number_].names)
            self._due.set()

    def rest(self, seconds: float) -> None:
        """Let news gather from now on; whoever asks for another run doesn't wait for that."""
        self._stir()
        self._resting = asyncio.get_running_loop().call_later(seconds, self._wake)

    def close(self) -> None:
        """Nobody watches any more: `news` returns None."""
        self._stir()
        self._is_over = True
        self._due.set()

    def _tell(self) -> None:
        if self._resting is None:
            self._due.set()

    def _wake(self) -> None:
        self._resting = None
        if self._changed or self._gone:
            self._due.set()

    def _stir(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    async def news(self) -> dict[str, Any] | None:
        """What changed since the last call; waits until something has."""
        await self._due.wait()
        self._due.clear()
        if self._is_over:
            return None
        changed, self._changed = self._changed, {}
        gone, self._gone = self._gone, []
        runs = [
            {"id": number_, **self._runs.runs[number_].some(sorted(names))}
            for number_, names in changed.items()
            if number_ in self._runs.runs
        ]
        found: dict[str, Any] = {"time": time.time(), "runs": runs, "gone": gone}
        if self._is_new:
            self._is_new = False
            found["page"] = self.key
        return found
