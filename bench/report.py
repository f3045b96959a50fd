"""What was measured, as Markdown and as plots."""

from __future__ import annotations

from harness import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

BEGIN, END = "<!-- bench: begin (written by make bench; not by hand) -->", "<!-- bench: end -->"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def head(data: dict[str, Any]) -> str:
    """The machine and its floors."""
    machine = data["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    text = (
        f"{machine['cpu']}, {machine['usable CPUs']} CPUs, {machine['memory MB'] / 1024:.0f} GB; "
        f"Linux {machine['kernel']}; CPython {machine['python']}; {packages}; "
        f"commit {machine['commit']}, {machine['when']}. Load before: {machine['load before']:.1f}."
    )
    rows = []
    for name, value in data["floors"].items():
        if "bytes/s" in name:
            rows.append([name.replace(" bytes/s", ""), f"{value / 1e9:.1f} GB/s"])
        elif "times" in name:
            rows.append([name, f"{value:.2f}"])
        else:
            rows.append([name, show(value, "ms" if value >= 1e-3 else "µs")])
    return f"{text}\n\n{_table(['floor of the machine', 'measured'], rows)}\n"


def case(found: dict[str, Any]) -> str:
    """One case: its goals, then its tables."""
    parts = [f"### {found['case']}. {found['title']}"]
    if "failure" in found:
        return parts[0] + f"\n\n**Failed:** {found['failure']}\n"
    if "anew" in found:
        anew = found["anew"]
        parts.append(
            f"Measured anew after the whole run: commit {anew['commit']}, {anew['when']}. "
            f"Load before: {anew['load before']:.1f}."
        )
    if found["goals"]:
        parts.append(_table(["goal", "asked", "reached", ""], [_goal(goal) for goal in found["goals"]]))
    for table in found["tables"]:
        parts.append(f"{table['name']}:")
        parts.append(_samples(table))
    parts += found["notes"]
    return "\n\n".join(parts) + "\n"


def _goal(goal: dict[str, Any]) -> list[str]:
    value = "–" if goal["value"] is None else f"{goal['value']:.3g}"
    return [
        goal["what"],
        f"{goal['sign']} {goal['wanted']:g}",
        value,
        {True: "met", False: "**missed**", None: "?"}[goal["met"]],
    ]


def _samples(table: dict[str, Any]) -> str:
    unit = table["unit"]
    more = [kind for kind in ("p99", "wakes", "private", "growth", "peak") if any(kind in row for row in table["rows"])]
    rows = []
    for row in table["rows"]:
        if "median" not in row:
            rows.append([row["who"], f"fails: {row['failure']}", "", "", *[""] * len(more)])
            continue
        low, high = row["low"], row["high"]
        if unit == "1/s":
            low, high = high, low
        cpu = show(row["cpu"], "µs" if unit == "1/s" else unit) if "cpu" in row else "–"
        extra = []
        for kind in more:
            if kind not in row:
                extra.append("–")
            elif kind in ("private", "growth", "peak"):
                extra.append(f"{row[kind] / 2**20:.1f} MB")
            else:
                extra.append(show(row[kind], unit) if kind == "p99" else f"{row[kind]:.0f}")
        name = row["who"] + (f" (failed later: {row['failure']})" if "failure" in row else "")
        rows.append([name, show(row["median"], unit), f"{show(low, unit)} … {show(high, unit)}", cpu, *extra])
    return _table(["", "median", "spread", "CPU", *more], rows)


def summary(data: dict[str, Any]) -> str:
    """How many goals are met."""
    goals = [goal for found in data["cases"] for goal in found.get("goals", ())]
    met = sum(goal["met"] is True for goal in goals)
    return f"{met} of {len(goals)} goals met, in {data['took']:.0f} s."


PEERS = ("tercio", "Pool", "ProcessPoolExecutor", "mpire")
SHORT = (  # case, how its table's name begins, what it is for people
    (1, "ints, chunk_size=1", "tiny tasks, handed out one by one"),
    (2, "a million identities", "a million tiny tasks, each library's own chunks"),
    (5, "apply and wait, back to back", "apply one task and wait for it"),
    (6, "fork, parent of 50 MB", "start two workers by fork, two tasks, end"),
    (6, "spawn, parent of 50 MB", "the same by spawn"),
    (6, "forkserver, parent of 50 MB", "the same by forkserver"),
    (7, "arrays of 8 MB", "an array of 8 MB to a worker and back"),
)


def short(data: dict[str, Any]) -> str:
    """A few figures that most readers ask for, of the same run; a row whose table is missing is left out."""
    tables = {(found["case"], table["name"]): table for found in data["cases"] for table in found.get("tables", ())}
    rows = []
    for number, begin, text in SHORT:
        table = next(
            (each for (case_, name), each in tables.items() if case_ == number and name.startswith(begin)), None
        )
        if table is None:
            continue
        cells = []
        for peer in PEERS:
            who = (row for row in table["rows"] if row["who"].split(" (")[0] == peer and "median" in row)
            row = next(who, None)
            cells.append("–" if row is None else show(row["median"], table["unit"]))
        rows.append([text, *cells])
    machine = data["machine"]
    text = (
        f"Medians on {machine['usable CPUs']} CPUs ({machine['cpu']}), CPython {machine['python']}, {machine['when']}"
    )
    titles = ["", "tercio", "`multiprocessing.Pool`", "`ProcessPoolExecutor`", f"mpire {machine['packages']['mpire']}"]
    return f"{_table(titles, rows)}\n\n{text}.\n"


def between(path: Path, body: str) -> None:
    """Put something between the markers of a document."""
    text = path.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}")


def into(path: Path, data: dict[str, Any]) -> None:
    """Put the figures into the page that shows them all."""
    pictures = [f"![{title}](images/{name}.svg)\n" for name, (title, _, _) in PLOTS.items()]
    body = "\n".join([head(data), summary(data), "", *pictures, *(case(found) for found in data["cases"])])
    between(path, body)


PLOTS = {
    "throughput": ("Throughput against task length, chunk_size=1, two workers", "task length, s", "tasks a second"),
    "arrays": ("Arrays in and out", "bytes", "seconds for one"),
    "start": ("A pool's life: start two workers, two tasks, end", "parent, MB", "seconds"),
}


def plots(folder: Path, data: dict[str, Any]) -> None:
    """An SVG each."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tercio"  # the same data give the same file
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for found in data["cases"]:
        for name, curves in found.get("plots", {}).items():
            title, x, y = PLOTS[name]
            figure, axes = pyplot.subplots(figsize=(8, 5))
            axes.set_prop_cycle(color=pyplot.get_cmap("tab10" if len(curves) <= 10 else "tab20").colors)
            for who, points in curves.items():
                points = [(a, 1 / b if name == "throughput" else b) for a, b in points if b == b and b]
                if points:
                    style = {"linewidth": 2.5} if who.startswith("tercio") else {"linewidth": 1, "linestyle": "--"}
                    axes.plot(*zip(*points), marker="o", markersize=3, label=who, **style)
            axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
            axes.grid(alpha=0.3)
            axes.legend(
                fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False
            )  # beside, on no curve
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            pyplot.close(figure)
