"""`tercio map`: a function, tasks from the shell, results as lines of JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from tercio._cli import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE, complain
from tercio._errors import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

SHOWN = 120  # characters of a task in a report
REPORTED = 20  # failures told one by one
OPTIONS = {"n_jobs": "--jobs", "chunk_size": "--chunk-size", "task_timeout": "--timeout", "max_retries": "--retries"}


def in_our_words(error: Exception) -> UsageError:
    """What the pool says of a parameter, by the name of the option."""
    name, space, rest = str(error).partition(" ")
    return UsageError(OPTIONS.get(name, name) + space + rest)


class WriteError(Exception):
    """Standard output takes no more, and not because its reader has enough."""


class UsageError(Exception):
    """The command line is wrong; its text says how."""


def find_function(spec: str) -> Callable[..., Any]:
    """Import what `module:function` or `file.py:function` names."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"{spec!r} is not MODULE:FUNCTION")
    folder, module = folder_of(place), place
    if place.endswith(".py"):
        path = Path(place).resolve()
        if not path.is_file():
            raise UsageError(f"there is no file {place!r}")
        folder, module = str(path.parent), path.stem
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise UsageError(f"there is no module {module!r} here or where Python looks") from None
        raise UsageError(f"{place} can't be imported\n{own_part_of(error)}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module {module!r} has no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{spec} is not callable")
    function: Callable[..., Any] = found
    return function


def folder_of(module: str) -> str | None:
    """The current folder, if the module may lie in it: nothing there is run for one of the standard library."""
    standard = getattr(sys, "stdlib_module_names", ())  # from Python 3.10 on
    if getattr(sys.flags, "safe_path", False) or module.partition(".")[0] in standard:
        return None
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


def own_part_of(error: BaseException) -> str:
    """A traceback without the frames that led to the user's code."""
    import traceback

    shown = traceback.TracebackException(type(error), error, error.__traceback__)
    ours = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen importlib")
    shown.stack[:] = [frame for frame in shown.stack if not frame.filename.startswith(ours)]
    return "".join(shown.format()).rstrip()


class Failure:
    """A task's exception, in a form that always travels. The task's number travels with it."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        self.kind, self.message, self.trace = kind, message, trace

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Task:
    """What runs in a worker. Answers with the task's number, so that results may come in any order."""

    def __init__(self, function: Callable[..., Any]) -> None:
        # By these names errors and the dashboard call it as the user does.
        self.__wrapped__ = function
        self.__qualname__ = name_of(function)

    def __call__(self, index: int, args: Any, kwargs: dict[str, Any]) -> tuple[int, str | Failure]:
        try:
            # As JSON already here: the workers share that work, and any result can travel.
            return index, json.dumps(self.__wrapped__(*args, **kwargs), default=plain)
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
    raise TypeError(f"the result holds something of type {type(value).__name__}, which JSON has no form for")


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
        if not options.tasks and sys.stdin is None:
            raise UsageError("standard input is closed; give it tasks, or name them behind the function")
        self._source: Iterator[str] = (
            iter(options.tasks)
            if options.tasks
            else lines_of(sys.stdin.buffer, b"\0" if self.format == "null" else b"\n")
        )

    def __iter__(self) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        any_text = self.format != "json"  # where a line of nothing is no task
        for index, text in enumerate(text for text in self._source if any_text or text.strip()):
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
        write(outcome)
        return True

    def _fail(self, index: int, task: Any, failure: Failure) -> None:
        if self.envelope:
            error = {"type": failure.kind, "message": failure.message, "traceback": failure.trace}
            write(json.dumps({"index": index, "input": task, "error": error}))
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
                    write(json.dumps({"index": index, "input": task, "error": error}))

    def tell(self) -> None:
        """Say on standard error what failed."""
        for line in self.lines:
            complain(f"tercio: {line}")
        more = self.n_failed - len(self.lines)
        if more > 0:
            complain(f"tercio: ... and {more} more")
        complain(f"tercio: {self.n_failed} of {self.n_results} tasks failed")


def write(line: str = "") -> None:
    """Write to standard output, and see to it that it has gone out."""
    try:
        if line:
            sys.stdout.write(line + "\n")
        else:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from None


def shortened(task: Any) -> str:
    """A task as it is shown to people."""
    text = json.dumps(task, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def run(options: argparse.Namespace) -> int:
    """The command."""
    try:
        return _run(options)
    except UsageError as error:
        if sys.stdout is not None:
            sys.stdout.flush()
        complain(f"tercio map: {error}")
        return EXIT_USAGE
    except BrokenPipeError:
        # The reader of our results has enough. Python flushes once more at its end, and must not find the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except WriteError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complain(f"tercio map: the results can't be written: {error}")
        return EXIT_FAILURE
    except KeyboardInterrupt:
        sys.stdout.flush()
        complain("tercio map: interrupted")
        return EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from tercio.context import DEFAULT_START_METHOD
    from tercio.pool import WorkerPool

    if sys.stdout is None:
        raise UsageError("standard output is closed; where should the results go?")
    task = Task(find_function(options.function))
    tasks = Tasks(options)
    report = Report(tasks, not options.unordered, options.envelope)
    try:
        pool = WorkerPool(options.jobs, start_method=options.start_method or DEFAULT_START_METHOD)
    except (TypeError, ValueError) as error:
        raise in_our_words(error) from None
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
                write()
                if options.stop and not good:
                    break
        except ValueError as error:
            if report.n_results or tasks.under_way:
                raise
            raise in_our_words(error) from None
        finally:
            results.close()
    if not options.stop:
        report.end()
    elif report.nameless:
        report.lines += [str(failure) for failure in report.nameless]
    write()
    if report.n_failed:
        report.tell()
        return EXIT_FAILURE
    return 0
