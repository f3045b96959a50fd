"""The benchmark suite: the cases in turn, each in a process of its own.

    make bench                 all of it, and what docs/performance.md and README.md show
    make bench CASE=5          one case, shown alone
    make bench CASE="5 6"      two
    make bench QUICK=1         small sizes: all of it within five minutes

Each case runs its contenders in turn (A B A B ...), checks their results, and reports medians. Ratios are medians of
the ratios within a round. The goals were set beforehand; those that are missed are shown as such.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
CASES = {
    1: ("Tiny tasks, chunk_size=1", "case_dispatch", "tiny_tasks"),
    2: ("One million tiny tasks, default chunks", "case_dispatch", "million"),
    3: ("Tasks of 1 µs to 100 ms", "case_dispatch", "lengths"),
    4: ("Skewed tasks", "case_dispatch", "skewed"),
    5: ("Apply and wait", "case_latency", "apply_and_wait"),
    6: ("Life of a pool", "case_latency", "life"),
    7: ("Arrays in and out", "case_memory", "arrays"),
    8: ("Shared objects", "case_memory", "shared_objects"),
    9: ("Worker replacement", "case_workers", "replacement"),
    10: ("Numerical: convolution", "case_workloads", "numerical"),
    11: ("Stateful: counting prefixes", "case_workloads", "stateful"),
    12: ("Expensive initialisation", "case_workloads", "initialised"),
    13: ("Streaming", "case_memory", "streams"),
    14: ("Idle", "case_latency", "idle"),
    15: ("The C face", "case_c", "c_face"),
    16: ("A dashboard that listens", "case_dashboard", "dashboard"),
    17: ("More tasks, more workers", "case_scale", "scale"),
}
BOUND = 3600  # seconds for a case: against a hang


def run_one(number: int, quick: bool, result: Path) -> None:
    """In the case's own process."""
    import warnings

    from harness import Case

    warnings.simplefilter("ignore")  # of forks beside the threads that other contenders leave behind
    title, module, function = CASES[number]
    case = Case(number, title, quick)
    getattr(import_module(module), function)(case)
    result.write_text(json.dumps(case.plain()))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next((int(line.split()[1]) >> 10 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    names = ("tercio", "mpire", "joblib", "faster-fifo", "numpy")
    return {
        "cpu": cpu,
        "usable CPUs": len(os.sched_getaffinity(0)),
        "memory MB": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "commit": _commit(),
        "when": time.strftime("%Y-%m-%d"),
        "load before": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=TOP, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"


def in_own_process(number: int, quick: bool, scratch: Path) -> dict[str, object]:
    """Run a case where nothing that it leaves behind meets the next one."""
    result = scratch / f"case-{number}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "run.py"), "--one", str(number), "--result", str(result)]
    child = subprocess.Popen(command + ["--quick"] * quick, start_new_session=True)
    try:
        code: int | str = child.wait(BOUND)
    except subprocess.TimeoutExpired:
        code = f"not done after {BOUND} s"
    finally:
        try:  # peers leave processes behind
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    if code != 0 or not result.exists():
        return {"case": number, "title": CASES[number][0], "failure": f"ended with {code}"}
    found: dict[str, object] = json.loads(result.read_text())
    return found


def put_into(last: dict[str, Any], anew: dict[str, Any]) -> dict[str, object]:
    """The last whole run with some of its cases measured anew; each of those says when, and of what."""
    machine = anew["machine"]
    cases = {case["case"]: case for case in last["cases"]}
    for case in anew["cases"]:
        case["anew"] = {name: machine[name] for name in ("commit", "when", "load before")}
        cases[case["case"]] = case
    last["cases"] = [cases[number] for number in sorted(cases)]
    return last


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Measure tercio beside others.")
    parser.add_argument("cases", nargs="*", type=int, help="numbers; none: all")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--again", action="store_true", help="put these cases in their places in the last whole run")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    scratch = Path(os.environ.setdefault("TERCIO_BENCH_BUILD", str(TOP / "build" / "bench")))
    # Two workers have two CPUs; a library's own threads beside them measure the scheduler.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY"):
        os.environ.setdefault(name, {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"}[name])
    if options.one is not None:
        run_one(options.one, options.quick, options.result)
        return 0

    import report

    started = time.monotonic()
    data: dict[str, object] = {"machine": machine(), "quick": options.quick}
    data["floors"] = json.loads(subprocess.run([scratch / "floors"], capture_output=True, check=True).stdout)
    print(report.head(data))
    cases = []
    for number in options.cases or CASES:
        print(f"case {number}: {CASES[number][0]}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        case = in_own_process(number, options.quick, scratch)
        case["took"] = round(time.monotonic() - begun, 1)
        cases.append(case)
        print(report.case(case), flush=True)
    data["cases"] = cases
    data["took"] = round(time.monotonic() - started, 1)
    whole = not options.cases
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    if options.again and not options.quick and not whole:
        data, whole = put_into(json.loads((results / "latest.json").read_text()), data), True
    name = "latest.json" if whole and not options.quick else "quick.json" if whole else "some.json"
    (results / name).write_text(json.dumps(data, indent=1) + "\n")
    if whole and not options.quick:
        report.into(TOP / "docs" / "performance.md", data)
        report.between(TOP / "README.md", report.short(data))
        report.plots(TOP / "docs" / "images", data)
    print(report.summary(data))
    return 1 if any("failure" in case for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
