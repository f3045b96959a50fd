"""The shell command `tercio`. Each command's own module is fetched when it is called."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def fraction_or_int(text: str) -> float:
    """A chunk size: an int where it is one, so that errors show what was typed."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def seconds(text: str) -> float:
    """A time to wait; without one a screen would be drawn as fast as it goes."""
    found = float(text)
    if not 0.01 <= found <= 3600:
        raise ValueError(text)
    return found


seconds.__name__ = "number of seconds, from 0.01 on,"


def ports(text: str) -> range:
    """A range of ports from `8080` or `8080-8099`, both ends included."""
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or not 0 <= found[0] <= found[-1] < 2**16:
        raise ValueError(text)
    return found


ports.__name__ = "range of ports"  # argparse names the type in its error


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    from tercio import __version__

    parser = argparse.ArgumentParser(prog="tercio", description="Worker pools, from the shell.")
    parser.add_argument("--version", action="version", version=f"tercio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_map(commands)
    _add_top(commands)
    _add_dashboard(commands)
    return parser


def _add_map(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "map",
        help="call a Python function on each line of standard input",
        description="Call a Python function on each task, in parallel, and print each result as a line of JSON. "
        "Tasks are the arguments given here, or else the lines of standard input.",
        epilog="Exits with 1 if a task failed (what and why is on standard error), 130 after Ctrl-C.",
    )
    command.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION; found from this folder on")
    command.add_argument(
        "tasks", metavar="TASK", nargs="*", default=[], help="such as files; default: lines of standard input"
    )
    command.add_argument("-j", "--jobs", type=int, metavar="N", help="number of workers (default: all usable CPUs)")
    command.add_argument("-m", "--start-method", metavar="METHOD", help="fork, spawn, forkserver or threading")
    command.add_argument("-c", "--chunk-size", type=fraction_or_int, metavar="N", help="tasks handed out at once")
    command.add_argument("-t", "--timeout", type=float, metavar="SECONDS", help="limit of each task")
    command.add_argument("-r", "--retries", type=int, default=0, metavar="N", help="of a task whose worker died")
    command.add_argument("-i", "--input", choices=("lines", "json", "null"), default="lines",
                         help="a task is a line, a line of JSON (an array: arguments; an object: keywords), or ends "
                         "with a zero byte, as from find -print0")  # fmt: skip
    command.add_argument("-u", "--unordered", action="store_true", help="print results as they come")
    command.add_argument("-e", "--envelope", action="store_true",
                         help='print {"index", "input", "result" or "error"}; failed tasks too')  # fmt: skip
    command.add_argument("-s", "--stop", action="store_true", help="stop at the first failure")
    command.add_argument("-p", "--progress", action="store_true", help="a bar on standard error")
    command.set_defaults(run="map")


def _add_top(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "top",
        help="watch the pools of a running process",
        description="Show what the workers of another process of yours do, live. Reads the counters that the pools "
        "keep in shared memory, so it works on a process that hangs, too. Pools of threads share none, and are not "
        "shown.",
    )
    command.add_argument("pid", metavar="PID", nargs="?", type=int, help="default: every process that has a pool")
    command.add_argument(
        "-n", "--interval", type=seconds, default=0.5, metavar="SECONDS", help="between two looks (0.5)"
    )
    command.add_argument("-1", "--once", action="store_true", help="print the state once and exit")
    command.add_argument("--json", action="store_true", help="with --once: as JSON")
    command.set_defaults(run="top")


def _add_dashboard(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "dashboard",
        help="serve a web page that shows map calls with a progress bar",
        description="Serve the dashboard until Ctrl-C. Programs that were started with the variable that it prints, "
        "or that call connect_to_dashboard, show up on it.",
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen at; others than loopback let the "
                         "network read what your programs do (127.0.0.1)")  # fmt: skip
    command.add_argument("--port-range", type=ports, default=range(8080, 8100), metavar="FIRST-LAST",
                         help="the first free one is taken (8080-8099)")  # fmt: skip
    command.set_defaults(run="dashboard")


def main(argv: Sequence[str] | None = None) -> int:
    """What the command does; returns its exit code."""
    parser = make_parser()
    # argparse gives a list of arguments nothing but what stands right behind the function: the rest comes back here.
    options, rest = parser.parse_known_args(argv)
    if rest and (options.run != "map" or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.tasks = [*options.tasks, *rest]
    home = {"map": "tercio._cli_map", "top": "tercio._top", "dashboard": "tercio.dashboard._command"}[options.run]
    try:
        command: Callable[[argparse.Namespace], int] = import_module(home).run
        return command(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ImportError as error:
        complain(f"tercio: {error}")
        return EXIT_USAGE


def complain(text: str) -> None:
    """Say something on standard error, if there is one. print() would take standard output in its place."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
