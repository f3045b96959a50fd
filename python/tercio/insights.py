"""What the workers did with their time, for people. The numbers are the workers' own counters."""

from __future__ import annotations

from tercio.utils import format_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["get_insights", "insights_string"]

# name in the insights, name in Pool.stats()
KINDS = (("start_up", "start"), ("init", "init"), ("waiting", "wait"), ("working", "work"), ("exit", "exit"))
LOW_EFFICIENCY = 0.8


def get_insights(stats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Insights from counters.

    Parameters
    ----------
    stats : sequence of dict
        One a worker, as ``WorkerPool.stats`` gives them.

    Returns
    -------
    dict
        Durations are text, ratios are fractions of the total time. Empty if there is no worker.

    Examples
    --------
    >>> from tercio.insights import get_insights
    >>> insights = get_insights([{"tasks": 3, "start": 0.1, "init": 0, "wait": 0.4, "work": 1.5, "exit": 0}])
    >>> insights["working_time"], round(insights["working_ratio"], 2)
    (['0:00:01.500'], 0.75)
    """
    if not stats:
        return {}
    insights: dict[str, Any] = {"n_completed_tasks": [int(worker["tasks"]) for worker in stats]}
    seconds = {name: [float(worker[key]) for worker in stats] for name, key in KINDS}
    for name, each in seconds.items():
        insights[_time(name)] = [format_seconds(value) for value in each]
    totals = {name: sum(each) for name, each in seconds.items()}
    for name, total in totals.items():
        insights[f"total_{_time(name)}"] = format_seconds(total)
    longest = sorted((entry for worker in stats for entry in worker.get("longest", ())), reverse=True)[:5]
    insights["top_5_max_task_durations"] = [format_seconds(duration) for duration, _, _ in longest]
    insights["top_5_max_task_args"] = [text for _, _, text in longest]
    total_time = sum(totals.values())
    insights["total_time"] = format_seconds(total_time)
    for name, each in seconds.items():
        mean = totals[name] / len(each)
        deviation = (sum((value - mean) ** 2 for value in each) / len(each)) ** 0.5
        insights[f"{name}_ratio"] = totals[name] / (total_time + 1e-8)
        insights[f"{_time(name)}_mean"] = format_seconds(mean)
        insights[f"{_time(name)}_std"] = format_seconds(deviation)
    return insights


def _time(name: str) -> str:
    return f"{name}_time"


def insights_string(insights: dict[str, Any]) -> str:
    """Insights as lines for a terminal; says how to get some if there are none.

    Parameters
    ----------
    insights : dict
        As ``get_insights`` gives them.

    Returns
    -------
    str
        The lines, without a newline at the end.

    Examples
    --------
    >>> from tercio.insights import insights_string
    >>> insights_string({})
    'There are no insights. Make the pool with enable_insights=True and run something first.'
    """
    if not insights:
        return "There are no insights. Make the pool with enable_insights=True and run something first."
    lines = ["WorkerPool insights", "-------------------"]
    lines.append(f"Tasks completed: {sum(insights['n_completed_tasks'])}")
    for name, _ in KINDS:
        key = _time(name)
        lines.append(
            f"Total {name.replace('_', ' ')} time: {insights[f'total_{key}']} (mean: {insights[f'{key}_mean']}, "
            f"std: {insights[f'{key}_std']}, ratio: {insights[f'{name}_ratio']:.2%})"
        )
    if insights["working_ratio"] < LOW_EFFICIENCY:
        lines += ["", f"Efficiency warning: the workers worked for less than {LOW_EFFICIENCY:.0%} of their time"]
    lines += ["", "Each worker", "-----------"]
    for worker_id, n_tasks in enumerate(insights["n_completed_tasks"]):
        times = ", ".join(f"{name.replace('_', ' ')}: {insights[_time(name)][worker_id]}" for name, _ in KINDS)
        lines.append(f"Worker {worker_id}: {n_tasks} tasks; {times}")
    if insights["top_5_max_task_durations"]:
        lines += ["", "The longest tasks", "-----------------"]
        pairs = zip(insights["top_5_max_task_durations"], insights["top_5_max_task_args"])
        lines += [f"{place}. {duration}: {text}" for place, (duration, text) in enumerate(pairs, 1)]
    return "\n".join(lines)
