"""The main module in workers: however the program was started, and one program after another in a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipapp

import pytest

BOUND = 55  # seconds, against a hang

BODY = """
import sys
from tercio import WorkerPool

class Point:
    def __init__(self, x):
        self.x = x

class Odd(Exception):
    pass

def move(point):
    assert isinstance(point, Point)
    if point.x == 3:
        raise Odd(point.x)
    return Point(point.x + 1)

def length(points):
    assert all(isinstance(point, Point) for point in points)
    return len(points)

def main(method):
    with WorkerPool(2, start_method=method) as pool:
        points = pool.map(move, [(Point(x),) for x in range(3)])
        assert [(type(point), point.x) for point in points] == [(Point, x) for x in (1, 2, 3)]
        assert pool.apply(move, (Point(7),)).x == 8
        try:
            pool.apply(move, (Point(3),))
        except Odd as error:
            assert error.args == (3,)
    with WorkerPool(1, start_method=method, shared_objects=points) as pool:
        assert pool.map(length_of_shared, [0]) == [3]
    print("fine")

def length_of_shared(points, _):
    return length(points)
"""
GUARD = '\nif __name__ == "__main__":\n    main(sys.argv[-1])\n'


def run(folder, *command, given=""):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, input=given, capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line == "fine"]


@pytest.fixture
def folder(tmp_path):
    """A script, a package, a folder and an archive, each with the same program in it."""
    for place in ("script.py", "script with spaces", "package/module.py", "package/__main__.py", "folder/__main__.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        relative = "from . import empty\n" if place.startswith("package") else ""
        (tmp_path / place).write_text(relative + BODY + GUARD)
    for name in ("__init__", "empty"):
        (tmp_path / "package" / f"{name}.py").write_text("")
    zipapp.create_archive(tmp_path / "folder", tmp_path / "archive.pyz")
    return tmp_path


RUNPY = "import runpy, sys; runpy.{}('{}', run_name='__main__', **{})"


@pytest.mark.contract("1 main")
@pytest.mark.parametrize(
    "command",
    [
        ["script.py"],
        ["script with spaces"],
        ["-m", "package.module"],
        ["-m", "package"],
        ["folder"],
        ["archive.pyz"],
        ["-m", "cProfile", "script.py"],
        ["-m", "profile", "script.py"],
        ["-m", "trace", "--count", "--missing", "--coverdir", "counts", "script.py"],
        ["-m", "pdb", "-c", "continue", "-c", "quit", "script.py"],
        ["-c", RUNPY.format("run_path", "script.py", {})],
        ["-c", RUNPY.format("run_path", "folder", {})],
        ["-c", RUNPY.format("run_module", "package.module", {"alter_sys": True})],
        ["-c", RUNPY.format("run_module", "package.module", {})],
    ],
    ids=lambda command: " ".join(command),
)
def test_what_the_program_defines_is_found(command, process_method, folder):
    assert run(folder, *command, process_method) == ["fine"]


@pytest.mark.contract("1 main")
def test_a_main_module_shares_its_names_with_what_it_defines(process_method, folder):
    (folder / "package" / "__main__.py").write_text(
        textwrap.dedent("""
            import sys
            from tercio import WorkerPool

            def note():
                global noted
                noted = 5

            def read(_):
                return sys.modules["__main__"].noted

            if __name__ == "__main__":
                with WorkerPool(1, start_method=sys.argv[1]) as pool:
                    print("fine" if pool.map(read, [0], worker_init=note) == [5] else "other")
        """)
    )
    assert run(folder, "-m", "package", process_method) == ["fine"]


def test_a_main_module_that_starts_work_by_itself_is_not_run_again(process_method, folder):
    """Such a `__main__` asks for no name; a function of it travels by value."""
    (folder / "package" / "__main__.py").write_text(
        textwrap.dedent("""
            import sys
            from tercio import WorkerPool

            def double(x):
                return 2 * x

            with WorkerPool(1, start_method=sys.argv[1]) as pool:
                print("fine" if pool.map(double, [1]) == [2] else "other")
        """)
    )
    assert run(folder, "-m", "package", process_method) == ["fine"]


ONE_AFTER_ANOTHER = """
    import runpy
    import sys

    for name in sys.argv[1:-1]:
        runpy.run_path(name, run_name="__main__")
"""


@pytest.mark.contract("1 main")
@pytest.mark.parametrize("names", [("one.py", "two.py"), ("one.py", "one.py")], ids=" ".join)
def test_one_program_after_another(names, process_method, tmp_path):
    for name in set(names):
        (tmp_path / name).write_text(BODY.replace("Point", f"Point_of_{name[:-3]}") + GUARD)
    assert run(tmp_path, "-c", textwrap.dedent(ONE_AFTER_ANOTHER), *names, process_method) == ["fine"] * 2


TWO_AT_A_TIME = """
    import runpy
    import sys

    pools = [runpy.run_path(name, run_name="__main__") for name in ("one.py", "two.py")]
    for _ in range(2):
        for number, names in enumerate(pools):
            got = [next(names["results"]), names["pool"].apply(names["make"], (5,)), next(names["waiting"]).get()]
            assert [type(thing) for thing in got] == [names["Thing"]] * 3
            try:
                names["pool"].apply(names["fail"], (1,))
            except names["Wrong"]:
                pass
    for names in pools:
        names["pool"].terminate()
    print("fine")
"""
MAKER = """
    import sys
    from tercio import WorkerPool

    class Thing:
        pass

    class Wrong(Exception):
        pass

    def make(_):
        return Thing()

    def fail(_):
        raise Wrong

    if __name__ == "__main__":
        pool = WorkerPool(1, start_method=sys.argv[-1], keep_alive=True)
        waiting = iter([pool.apply_async(make, (x,)) for x in range(2)])
        pool.apply(make, (0,))
        results = pool.imap(make, range(10), chunk_size=1, max_tasks_active=2)
        first = next(results)
"""


@pytest.mark.contract("1 main")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_two_programs_at_a_time(method, tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(textwrap.dedent(MAKER))
    assert run(tmp_path, "-c", textwrap.dedent(TWO_AT_A_TIME), method) == ["fine"]


def test_a_script_that_ipython_runs_twice(process_method, tmp_path):
    pytest.importorskip("IPython")
    (tmp_path / "script.py").write_text(BODY + GUARD)
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    command = [sys.executable, "-m", "IPython", "--no-banner", "-c", f"%run script.py {process_method}\n" * 2]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=BOUND, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["fine"] * 2, done.stderr
