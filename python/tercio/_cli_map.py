"""`tercio map`: a function, tasks from the shell, results as lines of JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from tercio._cli import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

SHOWN = 120  # characters of a task in a report
REPORTED = 20  # failures told one by one


class UsageError(Exception):
    """The command line is wrong; its text says how."""


def find_function(spec: str) -> Callable[..., Any]:
    """Import what `module:function` or `file.py:function` names."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"{spec!r} is not MODULE:FUNCTION")
    folder, module = os.getcwd(), place
    if place.endswith(".py"):
        path = Path(place).resolve()
        folder, module = str(path.parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another one
        raise UsageError(f"there is no module {module!r} here or where Python looks") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module {module!r} has no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{spec} is not callable")
    function: Callable[..., Any] = found
    return function


class Failure:
    """A task's exception, in a form that always travels. The task's number travels with it."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        self.kind, self.message, self.trace = kind, message, trace

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Task:
    """What runs in a worker. Answers with the task's number, so that results may come in any order."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, index: int, args: Any, kwargs: dict[str, Any]) -> tuple[int, str | Failure]:
        try:
            # As JSON already here: the workers share that work, and any result can travel.
            return index, json.dumps(self.function(*args, **kwargs), default=plain)
        except Exception as error:
            import traceback

            trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            return index, Failure(type(error).__name__, str(error), trace)


def plain(value: Any) -> Any:
    """What JSON can hold, for some things that it doesn't know."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return value.tolist()
    raise TypeError(f"the result holds a {type(value).__name__}, which JSON has no form for")


def lines_of(stream: Any, end: bytes) -> Iterator[str]:
    """Texts that end with `end`, as they arrive: what writes to us may be slow, or never end."""
    rest = b""
    while True:
        block = stream.read1(1 << 16)
        if not block:
            break
        *whole, rest = (rest + block).split(end)
        for line in whole:
            yield os.fsdecode(line)
    if rest:
        yield os.fsdecode(rest)


class Tasks:
    """The tasks, numbered; remembers those that are under way, to name the ones that failed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.format: str = options.input
        self.total: int | None = len(options.tasks) or None
        self.under_way: dict[int, Any] = {}
        self._source: Iterator[str] = (
            iter(options.tasks)
            if options.tasks
            else lines_of(sys.stdin.buffer, b"\0" if self.format == "null" else b"\n")
        )

    def __iter__(self) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        for index, text in enumerate(self._source):
            if self.format != "json":
                self.under_way[index] = text
                yield index, (text,), {}
                continue
            try:
                task = json.loads(text)
            except ValueError as error:
                raise UsageError(f"task {index} is not JSON: {error}") from None
            self.under_way[index] = task
            if isinstance(task, dict):
                yield index, (), task
            else:
                yield index, task if isinstance(task, list) else (task,), {}


class Report:
    """Prints results, and keeps what has to be said of failures."""

    def __init__(self, tasks: Tasks, ordered: bool, envelope: bool) -> None:
        self.tasks, self.ordered, self.envelope = tasks, ordered, envelope
        self.n_results = self.n_failed = 0
        self.lines: list[str] = []
        self.nameless: list[Failure] = []

    def add(self, answer: Any) -> bool:
        """Take one answer; returns whether it is good."""
        position = self.n_results
        self.n_results += 1
        outcome: Any
        if isinstance(answer, BaseException):  # of the engine: a dead worker, a limit
            failure = Failure(type(answer).__name__, str(answer).partition(" with:\n")[0], "")
            if not self.ordered:
                self.n_failed += 1
                self.nameless.append(failure)
                return False
            index, outcome = position, failure
        else:
            index, outcome = answer
        task = self.tasks.under_way.pop(index, None)
        if isinstance(outcome, Failure):
            self.n_failed += 1
            self._fail(index, task, outcome)
            return False
        if self.envelope:
            head = json.dumps({"index": index, "input": task})
            outcome = f'{head[:-1]}, "result": {outcome}}}'
        sys.stdout.write(outcome + "\n")
        return True

    def _fail(self, index: int, task: Any, failure: Failure) -> None:
        if self.envelope:
            error = {"type": failure.kind, "message": failure.message, "traceback": failure.trace}
            sys.stdout.write(json.dumps({"index": index, "input": task, "error": error}) + "\n")
        if len(self.lines) < REPORTED:
            self.lines.append(f"task {index} ({shortened(task)}): {failure}")

    def end(self) -> None:
        """Name the tasks whose worker couldn't: they are the ones that nobody answered."""
        left = sorted(self.tasks.under_way.items())
        if self.nameless and len(left) == len(self.nameless) == 1:
            self._fail(*left[0], self.nameless[0])
        elif self.nameless:
            self.lines += [str(failure) for failure in self.nameless[:REPORTED]]
            names = ", ".join(f"{index} ({shortened(task)})" for index, task in left[:REPORTED])
            self.lines.append(f"without an answer: {names}")
            if self.envelope:
                error = {"type": self.nameless[0].kind, "message": "no answer", "traceback": ""}
                for index, task in left:
                    sys.stdout.write(json.dumps({"index": index, "input": task, "error": error}) + "\n")

    def tell(self) -> None:
        """Say on standard error what failed."""
        for line in self.lines:
            print(f"tercio: {line}", file=sys.stderr)
        more = self.n_failed - len(self.lines)
        if more > 0:
            print(f"tercio: ... and {more} more", file=sys.stderr)
        print(f"tercio: {self.n_failed} of {self.n_results} tasks failed", file=sys.stderr)


def shortened(task: Any) -> str:
    """A task as it is shown to people."""
    text = json.dumps(task, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def run(options: argparse.Namespace) -> int:
    """The command."""
    try:
        return _run(options)
    except UsageError as error:
        sys.stdout.flush()
        print(f"tercio map: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # Who read our results has enough. Python flushes once more at its end, and must not find the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("tercio map: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from tercio.context import DEFAULT_START_METHOD
    from tercio.pool import WorkerPool

    task = Task(find_function(options.function))
    tasks = Tasks(options)
    report = Report(tasks, not options.unordered, options.envelope)
    try:
        pool = WorkerPool(options.jobs, start_method=options.start_method or DEFAULT_START_METHOD)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    chunk_size = options.chunk_size
    if chunk_size is None and tasks.total is None:
        chunk_size = 1  # what runs from a shell takes long enough, and a warning of ours would be noise
    with pool:
        call = pool.imap_unordered if options.unordered else pool.imap
        results = call(
            task, iter(tasks), iterable_len=tasks.total, chunk_size=chunk_size, task_timeout=options.timeout,
            progress_bar=options.progress, on_error="return", max_retries=options.retries,
            on_worker_death="retry" if options.retries else "raise",
        )  # fmt: skip
        try:
            for answer in results:
                good = report.add(answer)
                sys.stdout.flush()
                if options.stop and not good:
                    break
        except ValueError as error:
            if report.n_results or tasks.under_way:
                raise
            raise UsageError(str(error)) from None
        finally:
            results.close()
    if not options.stop:
        report.end()
    elif report.nameless:
        report.lines += [str(failure) for failure in report.nameless]
    sys.stdout.flush()
    if report.n_failed:
        report.tell()
        return EXIT_FAILURE
    return 0
