"""Contract section 6: progress bars, as a terminal, a stream and a notebook show them."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tasks
import tqdm
from support import as_usual
from tercio import WorkerPool
from tercio.tqdm_utils import PROGRESS_BAR_DEFAULT_STYLE, get_tqdm
from terminal import Terminal

MAPS = ("map", "map_unordered", "imap", "imap_unordered")

# The functions lie in the program, as a user's do: spawn finds them by running it.
PROGRAM = """
import os, signal, sys, threading, time, warnings
from tercio import WorkerPool

def work(x):
    time.sleep(0.01)
    return x

def fail(x):
    if x == 5:
        raise ValueError("no good")
    return x

def wait(x):
    if x == 3:
        for _ in range(3000):  # a thread is interrupted between two of them
            time.sleep(0.01)
    return x

def inner(x, method, style, bad):
    # Both bars stand on the screen at the same time: each inner pool waits for the other's file.
    with WorkerPool(1, start_method=method) as pool:
        options = {"position": x + 1, "desc": f"inner {x}"}
        results = pool.imap(fail if bad == x else work, range(10), progress_bar=True, progress_bar_style=style,
                            progress_bar_options=options, chunk_size=1)
        seen = [next(results)]
        open(f"ready-{x}", "w").close()
        while not (os.path.exists("ready-0") and os.path.exists("ready-1") and os.path.exists("go")):
            time.sleep(0.01)
        return len(seen + list(results))

def killed(x, method):
    with WorkerPool(1, start_method=method) as pool:
        options = {"position": x + 1, "desc": f"inner {x}", "mininterval": 0}
        for n in pool.imap(work, range(10), progress_bar=True, progress_bar_options=options, chunk_size=1):
            if n == 5 and not os.path.exists(f"died-{x}"):
                open(f"died-{x}", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
    return x

if __name__ == "__main__":
    what, method, style = sys.argv[1:4]
    print("above")
    # On a busy machine a thread may take longer to be interrupted than it is waited for.
    warnings.filterwarnings("ignore", ".*left behind as daemon")
    if what == "plain":
        with WorkerPool(2, start_method=method) as pool:
            pool.map(work, range(30), progress_bar=True, progress_bar_style=style, chunk_size=7)
    elif what == "unknown":
        with WorkerPool(2, start_method=method) as pool:
            pool.map(work, (i for i in range(30)), progress_bar=True, progress_bar_style=style, chunk_size=2)
    elif what == "fails":
        with WorkerPool(2, start_method=method) as pool:
            try:
                pool.map(fail, range(30), progress_bar=True, progress_bar_style=style, chunk_size=1)
            except ValueError:
                print("caught")
    elif what == "waits":
        with WorkerPool(2, start_method=method) as pool:
            try:
                pool.map(wait, range(8), progress_bar=True, progress_bar_style=style, chunk_size=1)
            except KeyboardInterrupt:
                print("caught")
    elif what == "killed":
        with WorkerPool(2, start_method=method, daemon=False) as pool:
            items = [(x, method) for x in range(2)]
            print(pool.map(killed, items, progress_bar=True, chunk_size=1, on_worker_death="retry",
                           progress_bar_options={"desc": "outer"}))
    elif what in ("nested", "nested-fails"):
        with WorkerPool(2, start_method=method, daemon=False) as pool:
            try:
                items = [(x, method, style, 0 if what == "nested-fails" else None) for x in range(2)]
                pool.map(inner, items, progress_bar=True, progress_bar_style=style, chunk_size=1,
                         progress_bar_options={"desc": "outer"})
            except ValueError:
                print("caught")
    print("below")
"""

ENDS = {
    "std": re.compile(r"100%\|█+\| 30/30 \[\d\d:\d\d<00:00, +[\d.]+it/s\]"),
    "rich": re.compile(r"100% ━{40} 30/30 \d\d:\d\d +[\d.]+ it/s"),
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program in a folder of its own."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("style", ["std", "rich"])
@pytest.mark.contract("6 terminal", "6 counts")
def test_on_a_terminal(start_method, style, program):
    with Terminal(program, "plain", start_method, style) as terminal:
        assert terminal.finish() == 0
        above, bar, below = terminal.lines
    assert (above, below) == ("above", "below")
    assert ENDS[style].fullmatch(bar), bar
    assert b"31/30" not in terminal.raw and b"0/30" in terminal.raw


@pytest.mark.parametrize("style", ["std", "rich"])
@pytest.mark.contract("6 unknown length")
def test_unknown_length(start_method, style, program):
    with Terminal(program, "unknown", start_method, style) as terminal:
        assert terminal.finish() == 0
        *_, bar, below = terminal.lines
    assert below == "below" and "30" in bar and "/30" not in bar and "%" not in bar


@pytest.mark.parametrize("style", ["std", "rich"])
@pytest.mark.contract("6 failure")
def test_failure_on_a_terminal(start_method, style, program):
    with Terminal(program, "fails", start_method, style, columns=120) as terminal:
        assert terminal.finish() == 0
        above, bar, *below = terminal.lines
    assert (above, below) == ("above", ["caught", "below"])
    assert "failed: ValueError" in bar and "/30" in bar


@pytest.mark.parametrize("style", ["std", "rich"])
@pytest.mark.contract("6 Ctrl-C")
def test_ctrl_c(start_method, style, program):
    with Terminal(program, "waits", start_method, style, columns=120) as terminal:
        terminal.wait_for(lambda lines: any(re.search(r"[67]/8", line) for line in lines))
        terminal.press(b"\x03")
        assert terminal.finish() == 0
        above, bar, *below = terminal.lines
    assert (above, below) == ("above", ["caught", "below"]), terminal.text
    assert "interrupted: KeyboardInterrupt" in bar


def at_positions(lines):
    """Three bars under what stood above."""
    return len(lines) == 4 and all(
        re.match(name, line) for name, line in zip(["above", "outer", "inner 0", "inner 1"], lines)
    )


@pytest.mark.parametrize("style", ["std", "rich"])
@pytest.mark.contract("6 nested", "6 position")
def test_nested(start_method, style, program):
    with Terminal(program, "nested", start_method, style) as terminal:
        terminal.wait_for(at_positions)
        (program.parent / "go").touch()
        terminal.wait_for(lambda lines: at_positions(lines) and all("10/10" in line for line in lines[2:4]))
        assert terminal.finish() == 0
        lines = terminal.lines
    assert lines[0] == "above" and re.match(r"outer:? *100%.* 2/2 ", lines[1]) and lines[-1] == "below"
    assert len(lines) in (3, 5), terminal.text  # bars of workers go with the picture, those of threads stay


@pytest.mark.contract("6 nested")
def test_nested_failure(start_method, program):
    with Terminal(program, "nested-fails", start_method, "std", columns=120) as terminal:
        terminal.wait_for(at_positions)
        (program.parent / "go").touch()
        assert terminal.finish() == 0
        lines = terminal.lines
    assert lines[0] == "above" and "failed: ValueError" in lines[1] and lines[-2:] == ["caught", "below"]


@pytest.mark.contract("6 nested")
def test_killed_while_it_draws(process_method, program):
    """No bar waits for one that was killed, and none leaves half a line."""
    with Terminal(program, "killed", process_method, "std") as terminal:
        assert terminal.finish() == 0
        above, bar, *below = terminal.lines
    assert (above, below) == ("above", ["[0, 1]", "below"]), terminal.text
    assert re.match(r"outer: 100%.* 2/2 ", bar)


# ---- On a stream --------------------------------------------------------------------------------------------------


def drawings(text: str) -> list[str]:
    """The drawings of a bar, one behind the other."""
    return [part for part in re.split(r"[\r\n]+", text) if part.strip()]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.contract("6 stderr", "6 counts")
def test_redirected_stderr(name, start_method):
    """'std' honours a redirected sys.stderr; tasks are counted, not chunks; the total is never passed."""
    with WorkerPool(2, start_method=start_method) as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        results = list(
            getattr(pool, name)(
                tasks.slowly,
                [(i, 0.05) for i in range(11)],
                chunk_size=1,
                progress_bar=True,
                progress_bar_options={"mininterval": 0.0},
            )
        )
    assert sorted(results) == list(range(11))
    counts = [int(found) for found in re.findall(r"(\d+)/11 ", stderr.getvalue())]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 11
    assert len(set(counts)) > 2  # it moved


@pytest.mark.contract("6 options")
def test_options_reach_the_bar():
    given = {"desc": "said", "unit": "stone", "file": io.StringIO(), "mininterval": 0.01}
    options = dict(given)
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        pool.map(tasks.identity, range(3), progress_bar=True, progress_bar_options=options)
    assert options == given and stderr.getvalue() == ""
    last = drawings(given["file"].getvalue())[-1]
    assert last.startswith("said: 100%") and "3/3" in last and "stone/s" in last


@pytest.mark.contract("6 counts")
def test_arrays_count_pieces():
    with WorkerPool(2, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        pool.map(tasks.array_sum, np.arange(100.0), progress_bar=True, n_splits=5, concatenate_numpy_output=False)
    assert "5/5" in stderr.getvalue() and "/100" not in stderr.getvalue()


@pytest.mark.contract("6 position")
def test_position_on_a_stream():
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        pool.map(tasks.identity, range(3), progress_bar=True, progress_bar_options={"position": 2})
    assert "\n\n\r" in stderr.getvalue() and "\x1b[A\x1b[A" in stderr.getvalue()


@pytest.mark.parametrize("style", [None, "std", "rich", "dashboard"])
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.contract("6 styles")
def test_every_style_on_every_map(name, style):
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        results = getattr(pool, name)(tasks.double, range(3), progress_bar=True, progress_bar_style=style)
        assert list(results) == [0, 2, 4]
    assert ("3/3" in stderr.getvalue()) == (style != "dashboard")
    assert style != "dashboard" or stderr.getvalue() == ""


@pytest.mark.contract("6 failure")
def test_failure_and_closing_on_a_stream(start_method):
    with WorkerPool(1, start_method=start_method) as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        with pytest.raises(ValueError, match="no good"):
            pool.map(tasks.fail, range(3), progress_bar=True)
        assert "failed: ValueError" in stderr.getvalue() and stderr.getvalue().endswith("\n")
        stderr.truncate(0)
        results = pool.imap(tasks.identity, range(3), progress_bar=True, chunk_size=1)
        next(results)
        results.close()
        assert "failed" not in stderr.getvalue() and stderr.getvalue().endswith("\n")
        assert pool.map(tasks.identity, range(3), progress_bar=True) == [0, 1, 2]


def test_no_bar_for_nothing():
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert pool.map(tasks.identity, [], progress_bar=True) == []
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("options", "style", "error", "text"),
    [
        ({"nonsense": 1}, None, tqdm.TqdmKeyError, "nonsense"),
        ({"nonsense": 1}, "rich", tqdm.TqdmKeyError, "nonsense"),
        ({"nonsense": 1}, "dashboard", tqdm.TqdmKeyError, "nonsense"),
        ({"bar_format": "{unheard}"}, None, KeyError, "unheard"),
        ({"position": "top"}, None, TypeError, "position"),
        ({"position": -1}, None, ValueError, "position"),
        ({1: 2}, None, TypeError, "1"),
        ("position", None, TypeError, "progress_bar_options"),
        (None, "fancy", ValueError, "progress_bar_style"),
        ({"mininterval": "x"}, None, ValueError, "mininterval"),
    ],
)
@pytest.mark.contract("6 wrong options")
def test_wrong_options(options, style, error, text):
    with WorkerPool(1, start_method="threading") as pool:
        with pytest.raises(error, match=text):
            pool.map(tasks.identity, [1], progress_bar=True, progress_bar_options=options, progress_bar_style=style)
        assert pool.stats() == []  # before any worker starts


def test_position_none_is_the_first_line():
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        pool.map(tasks.identity, range(3), progress_bar=True, progress_bar_options={"position": None})
    assert stderr.getvalue().startswith("\r")


@pytest.mark.contract("6 wrong options")
def test_unknown_style_without_a_bar():
    with WorkerPool(1, start_method="threading") as pool, pytest.raises(ValueError, match="progress_bar_style"):
        pool.map(tasks.identity, [1], progress_bar_style="fancy")


@pytest.mark.contract("6 ours")
def test_total_and_leave_are_ours():
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()) as stderr:
        for ours in ({"total": 7}, {"leave": False}):
            with pytest.warns(RuntimeWarning, match=next(iter(ours))):
                pool.map(tasks.identity, range(3), progress_bar=True, progress_bar_options=ours)
    assert "3/3" in stderr.getvalue() and "/7" not in stderr.getvalue()


@pytest.mark.contract("6 tqdm")
def test_tqdm_is_left_alone():
    """Neither its lock nor its thread: another bar of the program's works as before."""
    before, threads = tqdm.tqdm.get_lock(), threading.active_count()
    with WorkerPool(1, start_method="threading") as pool, contextlib.redirect_stderr(io.StringIO()):
        list(pool.imap(tasks.identity, range(3), progress_bar=True))
    assert tqdm.tqdm.get_lock() is before and get_tqdm("std").get_lock() is not before
    assert tqdm.tqdm.monitor is None and threading.active_count() == threads
    assert not tqdm.tqdm._instances


def test_one_write_a_drawing():
    """What keeps bars of several processes apart without a lock."""

    writes = []

    class Stream(io.StringIO):
        def write(self, text):
            writes.append(text)
            return len(text)

    bar = get_tqdm("std")(total=3, position=2, file=Stream())
    bar.update(1)
    bar.refresh()
    bar.close()
    assert len(writes) <= 4
    assert all(write.startswith("\n\n\r") and "\x1b[A\x1b[A" in write for write in writes)


@pytest.mark.contract("6 failure")
@pytest.mark.parametrize("style", ["std", "rich", "dashboard"])
def test_a_drawing_that_fails_keeps_no_lock(style, monkeypatch):
    """Else the bars of all other threads would wait for ever."""
    bar = get_tqdm(style)(total=3, file=io.StringIO())
    with monkeypatch.context() as broken:

        def fail(*_):
            raise KeyboardInterrupt

        broken.setattr(bar, "display", fail)
        for lock_args in (None, (False,)):
            with pytest.raises(KeyboardInterrupt):
                bar.refresh(lock_args=lock_args)
    freed = []

    def take():
        freed.append(bar.get_lock().acquire(False))
        bar.get_lock().release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert freed == [True]
    bar.close()


@pytest.mark.contract("6 styles")
def test_default_style():
    assert PROGRESS_BAR_DEFAULT_STYLE == "std"
    assert get_tqdm(None) is get_tqdm("std")


# ---- In a notebook ------------------------------------------------------------------------------------------------

NOTEBOOK = """
import json, sys
import nbformat
from nbclient import NotebookClient

code = '''
import time
from tercio import WorkerPool

def work(x):
    time.sleep(0.01)
    return x * 2

with WorkerPool(2, start_method=METHOD, serializer="cloudpickle") as pool:
    print(sum(pool.map(work, range(20), progress_bar=True, progress_bar_style="notebook")))
    try:
        pool.map(lambda x: 1 / (x - 5), range(10), progress_bar=True, progress_bar_style="notebook", chunk_size=1)
    except ZeroDivisionError:
        print("caught")
'''
cells = [nbformat.v4.new_code_cell(f"METHOD = {method!r}" + code) for method in sys.argv[1:]]
book = nbformat.v4.new_notebook(cells=cells)
client = NotebookClient(book, timeout=50, kernel_name="python3", resources={"metadata": {"path": "."}})
client.execute()
widgets = client.widget_state
told = [[out.get("text") or list(out["data"]) for out in cell.outputs] for cell in book.cells]
states = list(widgets.values())
bars = [[s["value"], s["max"], s["bar_style"]] for s in states if s["_model_name"] == "FloatProgressModel"]
texts = [s["value"] for s in states if s["_model_name"] == "HTMLModel"]
print(json.dumps([told, bars, texts]))
"""


@pytest.mark.contract("6 notebook")
def test_in_a_notebook(tmp_path):
    """Widgets, under each start method, with functions that were typed into the notebook."""
    import json

    pytest.importorskip("nbclient")
    methods = ["fork", "spawn", "forkserver", "threading"]
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    # Jupyter can't stand `make test-dev`: its kernels fork beside threads, and stop their loops from another thread.
    environment = {name: value for name, value in as_usual().items() if name != "PYTHONDEVMODE"}
    done = subprocess.run(
        [sys.executable, str(script), *methods],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=58, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, bars, texts = json.loads(done.stdout.splitlines()[-1])
    for cell in told:
        text = "".join(part for part in cell if isinstance(part, str))
        assert "380" in text and "caught" in text, cell
        assert sum("application/vnd.jupyter.widget-view+json" in part for part in cell) == 2, cell
    assert sum(bar == [20.0, 20.0, "success"] for bar in bars) == len(methods), bars
    assert sum(bar[2] == "danger" for bar in bars) == len(methods), bars
    assert sum("20/20" in text for text in texts) == len(methods)
    assert sum("failed:\u2007ZeroDivisionError" in text for text in texts) == len(methods), texts
