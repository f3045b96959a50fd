"""`tercio map`, as a shell calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BOUND = 50  # seconds, against a hang
TERCIO = [sys.executable, "-m", "tercio._cli"]

FUNCTIONS = """
import os, signal, threading

def double(text): return int(text) * 2
def inverse(text): return 1 / int(text)
def add(a, b=10): return a + b
def hang_at_two(text):
    if text == "2": threading.Event().wait()
    return text
def die_at_two(text):
    if text == "2": os.kill(os.getpid(), signal.SIGKILL)
    return text
def die_once(text):
    try: os.close(os.open("was-here", os.O_CREAT | os.O_EXCL))
    except FileExistsError: return text
    os.kill(os.getpid(), signal.SIGKILL)
def odd(text): return object()
def kinds(text):
    import pathlib
    return [pathlib.Path("a"), {2, 1}]
class Holder:
    @staticmethod
    def method(text): return text
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a module of functions."""
    (tmp_path / "work.py").write_text(FUNCTIONS, "utf-8")
    return tmp_path


def tercio_map(here: Path, *options: str, given: bytes = b"") -> tuple[int, list[str], str]:
    """Exit code, lines of output, standard error."""
    done = subprocess.run(
        [*TERCIO, "map", "-j", "2", *options], cwd=here, input=given, capture_output=True, timeout=BOUND, check=False
    )
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def test_lines_in_order(here: Path, start_method: str) -> None:
    """Each line is a task; the last one needs no end."""
    given = b"\n".join(b"%d" % n for n in range(50))
    code, lines, errors = tercio_map(here, "work:double", "-m", start_method, given=given)
    assert (code, errors) == (0, "")
    assert lines == [str(2 * n) for n in range(50)]


def test_forms_of_input(here: Path) -> None:
    """Arrays are arguments, objects are keywords; file names may hold line ends."""
    given = b'[1, 2]\n{"a": 5}\n7\n'
    assert tercio_map(here, "work:add", "-i", "json", given=given) == (0, ["3", "15", "17"], "")
    code, lines, _ = tercio_map(here, "work:Holder.method", "-i", "null", given=b"a\nb\0c\xff\0")
    assert (code, [json.loads(line) for line in lines]) == (0, ["a\nb", "c\udcff"])
    assert tercio_map(here, "work.py:double", "3", "4") == (0, ["6", "8"], "")
    assert tercio_map(here, "work:kinds", "0") == (0, ['["a", [1, 2]]'], "")
    assert tercio_map(here, "work:double") == (0, [], "")
    code, lines, errors = tercio_map(here, "work:add", "-i", "json", given=b"[1, 2]\n[1,\n")
    assert code == 2
    assert "task 1 is not JSON" in errors


def test_failures_are_told(here: Path) -> None:
    """The others go on; the exit code and standard error tell."""
    code, lines, errors = tercio_map(here, "work:inverse", "1", "0", "2")
    assert (code, lines) == (1, ["1.0", "0.5"])
    assert errors.splitlines() == [
        'tercio: task 1 ("0"): ZeroDivisionError: division by zero',
        "tercio: 1 of 3 tasks failed",
    ]
    code, lines, errors = tercio_map(here, "work:odd", "1")
    assert (code, lines) == (1, [])
    assert "holds something of type object" in errors
    code, lines, errors = tercio_map(here, "work:inverse", *["0"] * 30)
    assert "... and 10 more" in errors
    code, lines, _ = tercio_map(here, "work:inverse", "--stop", "-c", "1", "0", *["1"] * 20)
    assert (code, lines) == (1, [])


@pytest.mark.parametrize("unordered", [(), ("-u",)])
def test_envelope_names_what_died(here: Path, unordered: tuple[str, ...]) -> None:
    """A worker that is killed costs its task alone, and it is known which, in any order."""
    code, lines, errors = tercio_map(here, "work:die_at_two", "-e", *unordered, "1", "2", "3", "4")
    found = {answer["index"]: answer for answer in map(json.loads, lines)}
    assert code == 1
    assert [found[index].get("result") for index in range(4)] == ["1", None, "3", "4"]
    assert (found[1]["input"], found[1]["error"]["type"]) == ("2", "WorkerDiedError")
    assert "SIGKILL" in errors
    assert "while it ran die_at_two" in errors
    assert "1 of 4" in errors


def test_retries_and_limits(here: Path) -> None:
    """A death may be tried again; a limit fails the one task."""
    assert tercio_map(here, "work:die_once", "--retries", "1", "a", "b") == (0, ['"a"', '"b"'], "")
    code, lines, errors = tercio_map(here, "work:hang_at_two", "--timeout", "0.2", "1", "2", "3")
    assert (code, lines) == (1, ['"1"', '"3"'])
    assert "timed out" in errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("work",), "not MODULE:FUNCTION"),
        (("nowhere:f",), "no module 'nowhere'"),
        (("work:nothing",), "has no 'nothing'"),
        (("work:FUNCTIONS.x",), "has no"),
        (("work:double", "-m", "cloning", "1"), "cloning"),
        (("work:double", "-c", "0", "1"), "--chunk-size is 0"),
        (("work:double", "-t", "0", "1"), "--timeout is 0"),
        (("./nowhere.py:f",), "no file './nowhere.py'"),
    ],
)
def test_misuse(here: Path, options: tuple[str, ...], text: str) -> None:
    """One line that says what is wrong, and exit code 2."""
    code, lines, errors = tercio_map(here, *options)
    assert (code, lines) == (2, [])
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("def f(:", ("broken.py", "SyntaxError")),
        ("import nowhere_at_all", ("broken.py", "nowhere_at_all")),
        ("1 / 0", ("broken.py", "ZeroDivisionError")),
        ("raise SystemExit(0)", ("broken.py", "SystemExit")),
    ],
)
def test_a_module_that_cannot_be_imported(here: Path, content: str, texts: tuple[str, ...]) -> None:
    """Says where in the user's module, and nothing of what led there."""
    (here / "broken.py").write_text(content, "utf-8")
    code, lines, errors = tercio_map(here, "broken:f", "1")
    assert (code, lines) == (2, [])
    assert errors.startswith("tercio map: broken can't be imported\n")
    assert all(text in errors for text in texts)
    assert "_cli_map" not in errors
    assert "importlib" not in errors


@pytest.mark.parametrize(
    ("redirected", "code", "out", "errors"),
    [
        ("<&-", 2, "", "tercio map: standard input is closed"),
        ("1 >&-", 2, "", "tercio map: standard output is closed"),
        ("1 >/dev/full", 1, "", "tercio map: the results can't be written: No space left on device"),
        ("x 2>&-", 1, "", ""),
    ],
)
def test_streams_that_are_closed_or_full(here: Path, redirected: str, code: int, out: str, errors: str) -> None:
    """One line, or nothing where there is nowhere to say it; never among the results."""
    command = f"{' '.join(TERCIO)} map -j 1 work:double {redirected}"
    done = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(errors)
    assert done.stderr.count("\n") == bool(errors)


def test_lines_of_any_length_and_of_nothing(here: Path) -> None:
    """A line may be longer than any buffer; an empty one is a text, but no JSON."""
    code, lines, _ = tercio_map(here, "work:Holder.method", given=b"x" * 3_000_000 + b"\n\n")
    assert (code, [len(json.loads(line)) for line in lines]) == (0, [3_000_000, 0])
    assert tercio_map(here, "work:add", "-i", "json", given=b"[1]\n\n[2]\n\n") == (0, ["11", "12"], "")


def test_interrupt_is_clean(here: Path) -> None:
    """Ctrl-C while a task hangs: what was done is printed, no traceback, no process left (the fixture looks)."""
    command = [*TERCIO, "map", "-j", "2", "-u", "work:hang_at_two", "1", "2", "3"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline(), process.stdout.readline()}
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=BOUND)
    assert lines == {b'"1"\n', b'"3"\n'}
    assert (process.returncode, rest, errors) == (130, b"", b"tercio map: interrupted\n")


def test_reader_that_has_enough(here: Path) -> None:
    """`| head -1` ends an endless input without a word."""
    command = f"yes 1 | {' '.join(TERCIO)} map -j 2 work:double | head -1"
    done = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, timeout=BOUND, check=False)
    assert (done.stdout, done.stderr) == (b"2\n", b"")
