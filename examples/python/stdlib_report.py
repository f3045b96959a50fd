"""Measure Python's own standard library: once in a plain loop, then in worker pools of every start method.

Each file is parsed, and its functions, classes, lines and deepest nesting are counted. That is work for the CPU, in
pieces of very different size: what a pool is for. Threads share one interpreter lock here, so they gain nothing.

    python stdlib_report.py [--jobs N] [--files N] [start method ...]
"""

from __future__ import annotations

import argparse
import ast
import atexit
import os
import sys
import sysconfig
import time
import tokenize
import warnings
from pathlib import Path
from typing import NamedTuple

METHODS = ["fork", "spawn", "forkserver", "threading"]
BLOCKS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With,
    ast.AsyncWith, ast.Try,
)  # fmt: skip


class Module(NamedTuple):
    """What was counted in one file."""

    path: str
    parsed: bool
    lines: int = 0
    functions: int = 0
    classes: int = 0
    depth: int = 0


class Timing(NamedTuple):
    """How one way of doing it went, in seconds."""

    name: str
    start_up: float | None
    total: float


def measure(path: str) -> Module:
    """Count what one file holds. Files that are broken on purpose (test data) are told apart, not failed."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
        tree = ast.parse(text, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Module(path, parsed=False)
    functions = classes = deepest = 0
    todo: list[tuple[ast.AST, int]] = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        if isinstance(node, BLOCKS):
            depth += 1
            deepest = max(deepest, depth)
            functions += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            classes += isinstance(node, ast.ClassDef)
        todo.extend((child, depth) for child in ast.iter_child_nodes(node))
    return Module(path, True, text.count("\n"), functions, classes, deepest)


def quiet() -> None:
    """Old files hold what today's compiler warns about; that is theirs, not ours.

    Run once in each worker. `warnings.catch_warnings` in `measure` would not do: it isn't safe in threads.
    """
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)


def find_files(limit: int | None) -> list[str]:
    """Every module of the standard library and its tests, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages", "__pycache__"}
    found = [str(path) for path in sorted(root.rglob("*.py")) if not others.intersection(path.relative_to(root).parts)]
    return found[:: max(1, len(found) // limit)][:limit] if limit else found


def run_serially(files: list[str]) -> tuple[list[Module], Timing]:
    """The loop that the pools have to beat."""
    begin = time.perf_counter()
    modules = [measure(path) for path in files]
    return modules, Timing("serial", None, time.perf_counter() - begin)


def run_in_pool(method: str, n_jobs: int | None, files: list[str]) -> tuple[list[Module], Timing]:
    """The same in a pool: one line instead of another."""
    from tercio import WorkerPool

    begin = time.perf_counter()
    with WorkerPool(n_jobs=n_jobs, start_method=method, keep_alive=True) as pool:
        # A first result of next to no work: what it costs to start.
        pool.map(len, [("",)], worker_init=quiet)
        ready = time.perf_counter()
        modules = pool.map(measure, files, worker_init=quiet)
        pool.stop_and_join()
    return modules, Timing(method, ready - begin, time.perf_counter() - begin)


def print_head(n_files: int) -> None:
    """What is done, and the titles of the columns."""
    print(f"Measuring {n_files} files of the standard library, in a loop and in pools; about a minute\n")
    print(f"{'':<12}{'start-up':>10}{'total':>10}{'files/s':>10}{'speed-up':>10}", flush=True)


def print_timing(timing: Timing, n_files: int, serial: float) -> None:
    """The line of one way."""
    name, start_up, total = timing
    start = "" if start_up is None else f"{start_up:.3f} s"
    print(f"{name:<12}{start:>10}{total:>8.2f} s{n_files / total:>10.0f}{serial / total:>9.2f}x", flush=True)


def print_modules(modules: list[Module]) -> None:
    """Totals, and the ten largest."""
    root = sysconfig.get_path("stdlib")
    parsed = [module for module in modules if module.parsed]
    print(f"\n{len(modules)} files, {len(modules) - len(parsed)} of them not Python of today (test data)")
    print(
        f"{sum(m.lines for m in parsed)} lines, {sum(m.functions for m in parsed)} functions, "
        f"{sum(m.classes for m in parsed)} classes, nesting up to {max(m.depth for m in parsed)}\n"
    )
    print(f"{'the ten largest':<40}{'lines':>8}{'functions':>11}{'classes':>9}{'depth':>7}")
    for module in sorted(parsed, key=lambda module: (-module.lines, module.path))[:10]:
        name = os.path.relpath(module.path, root)
        print(f"{name:<40}{module.lines:>8}{module.functions:>11}{module.classes:>9}{module.depth:>7}")


def children() -> list[str]:
    """Processes whose parent is this one, as Linux tells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            continue  # it ended while we looked
        if rest.split()[1] == str(os.getpid()):
            found.append(f"{name})")
    return found


def nothing_left(main_process: int) -> None:
    """Fail when a worker or a server outlives its pool."""
    if os.getpid() == main_process and (left := children()):
        print(f"left running: {', '.join(left)}", file=sys.stderr, flush=True)
        os._exit(1)


def main() -> None:
    """Run it every way, compare, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="start method", help=f"among {', '.join(METHODS)} (all)")
    parser.add_argument("--jobs", type=int, metavar="N", help="workers (all CPUs)")
    parser.add_argument("--files", type=int, metavar="N", help="take about so many files (all)")
    options = parser.parse_args()

    # Registered before the package is imported, so that it looks after the package has cleaned up.
    atexit.register(nothing_left, os.getpid())
    quiet()
    files = find_files(options.files)
    print_head(len(files))
    expected, timing = run_serially(files)
    serial = timing.total
    print_timing(timing, len(files), serial)
    for method in options.methods or METHODS:
        modules, timing = run_in_pool(method, options.jobs, files)
        if modules != expected:
            sys.exit(f"{method} counted differently")
        print_timing(timing, len(files), serial)
    print_modules(expected)


if __name__ == "__main__":
    main()
