"""Counts the instructions of hot paths and compares them with a committed baseline.

    tools/instructions.py PYTHON BUILD            compare; ends with 1 when something costs over a tenth more
    tools/instructions.py PYTHON BUILD --accept   make what is measured the baseline

Instructions are counted by valgrind (callgrind), so neither the machine's speed nor what else runs on it matters.
Waiting is left out as far as can be: the ring's ends are in one thread, and of what has two threads the best round
counts. Another compiler or interpreter makes other instructions: then there is nothing to compare with, and the
figures are shown alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / "instructions"
TOP = HERE.parent.parent
BASELINE = HERE / "baseline.json"
TOLERANCE = 0.10
BOUND = 300  # seconds, against a hang
ENGINE = ["channel/channel.c", "plat/linux/bell.c", "plat/linux/word.c", "plat/linux/clock.c"]


def parts(folder: Path) -> dict[str, list[float]]:
    """What callgrind wrote, by the names of the marks: instructions for one time, of each round."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.iterdir():
        text = path.read_text()
        mark = re.search(r"^desc: Trigger: Client Request: (.+)/(\d+)$", text, re.M)
        total = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        if mark and total:
            number = int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0
            found.setdefault(mark[1], []).append((number, int(total[1]) / int(mark[2])))
    return {name: [count for _, count in sorted(rounds)] for name, rounds in found.items()}


def count(command: list[str], folder: Path) -> dict[str, float]:
    """Run a program under callgrind."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    valgrind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
    subprocess.run(
        [*valgrind, *command],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
        timeout=BOUND,
        stdin=subprocess.DEVNULL,
    )
    return {name: round(min(rounds), 1) for name, rounds in parts(folder).items()}


def measure(python: str, build: Path) -> dict[str, float]:
    """Build the programs and count."""
    build.mkdir(parents=True, exist_ok=True)
    engine = TOP / "engine"
    includes = [f"-I{TOP / 'include'}", f"-I{engine}"]
    flags = ["-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    sources = [str(HERE / "micro.c"), *(str(engine / name) for name in ENGINE)]
    subprocess.run(["gcc", *flags, *includes, *sources, "-pthread", "-o", build / "micro"], check=True)
    marks = build / "marks.so"
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", HERE / "marks.c", "-o", marks], check=True)
    counts = count([str(build / "micro")], build / "out-micro")
    counts.update(count([python, str(HERE / "small.py"), str(marks)], build / "out-python"))
    return counts


def kind_of_machine(python: str) -> str:
    """What the instructions depend on: a baseline is for this alone."""
    gcc = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    ask = "import platform; print(platform.python_version())"
    version = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    return f"gcc {gcc}, CPython {version}, {platform.machine()}"


def compare(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """What is wrong, a line each."""
    wrong = [f"{name}: in the baseline, but not measured" for name in before if name not in now]
    for name, value in now.items():
        if name not in before:
            wrong.append(f"{name}: {value:.0f} instructions, but not in the baseline (--accept)")
        elif value > before[name] * (1 + TOLERANCE):
            wrong.append(f"{name}: {value:.0f} instructions, {value / before[name] - 1:+.0%} over {before[name]:.0f}")
    return wrong


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Count the instructions of hot paths.")
    parser.add_argument("python")
    parser.add_argument("build", type=Path)
    parser.add_argument("--accept", action="store_true", help="write the baseline")
    options = parser.parse_args()
    kind = kind_of_machine(options.python)
    baselines: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    now = measure(options.python, options.build / "instructions")
    before = baselines.get(kind)
    if options.accept or before is None:
        for name, value in now.items():
            print(f"{value:10.1f}  {name}")
    if options.accept:
        baselines[kind] = now
        BASELINE.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")
        return 0
    if before is None:
        print(f"instructions: there is no baseline for {kind}; nothing was compared")
        return 0
    wrong = compare(now, before)
    for line in wrong:
        print(f"instructions: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
