"""Case 15: the C face beside OpenMP."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from harness import Case, Measured, Samples, ratio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def c_face(case: Case) -> None:
    """tercio_map over items of 8 bytes; each line of the program's output is one run, in turn."""
    program = os.environ["TERCIO_BENCH_BUILD"] + "/map"
    items = 1_000_000 if case.quick else 10_000_000
    out = subprocess.run(
        [program, str(items), str(case.rounds)], stdout=subprocess.PIPE, stderr=sys.stderr, check=True, text=True
    ).stdout
    groups: dict[str, dict[str, Samples]] = {}
    for line in out.splitlines():
        run: dict[str, Any] = json.loads(line)
        samples = groups.setdefault(run["group"], {})
        sample = samples.setdefault(run["who"], Samples(run["who"]))
        sample.runs.append(Measured(run["seconds"], run["cpu"], run["n"]))
    for group, samples in groups.items():
        case.table(group, samples, "1/s")
        short = "empty" in group
        if "chunk 1," in group and short:
            for who in ("tercio fork", "tercio threading"):
                case.at_least(f"{group}, {who}: million tasks/s", 1e-6 / samples[who].median(), 8)
        else:
            value = ratio(samples, "OpenMP dynamic", "tercio threading")
            case.at_least(f"{group}: tercio threading, of OpenMP dynamic's speed", value, 0.95)
