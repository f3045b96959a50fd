"""Programs that are frozen into an executable: their workers are the program itself, started again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("PyInstaller")

BOUND = 100  # seconds, against a hang

PROGRAM = """
    import multiprocessing
    import os
    import sys

    import tercio


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


    def move_in_a_pool(point):
        with tercio.WorkerPool(1, start_method=os.environ["METHOD"]) as pool:
            return pool.map(move, [(point,)])[0]


    def count(shared, _):
        with shared.get_lock():
            shared.value += 1


    def see(_):
        return os.getpid(), sys.argv


    def is_preloaded(_):
        return "colorsys" in sys.modules


    def to_be_bundled():
        import colorsys


    def main(method):
        if method == "forkserver":
            tercio.set_forkserver_preload(["colorsys"])
        with tercio.WorkerPool(2, start_method=method, daemon=False) as pool:
            for function in (move, move_in_a_pool):
                points = pool.map(function, [(Point(x),) for x in range(3)])
                assert [(type(point), point.x) for point in points] == [(Point, x) for x in (1, 2, 3)]
            try:
                pool.apply(move, (Point(3),))
            except Odd as error:
                assert error.args == (3,)
            assert pool.apply(is_preloaded, (0,)) == (method == "forkserver")
        with tercio.WorkerPool(2, start_method=method) as pool:
            seen = pool.map(see, range(6), chunk_size=1, worker_lifespan=2)
            assert all(argv == sys.argv for _, argv in seen), seen
            assert len({pid for pid, _ in seen}) >= (1 if method == "threading" else 3), seen
        if os.environ["KIND"] == "folder":
            # The helper of multiprocessing that this starts may still do so when one file's folder is removed.
            ctx = multiprocessing.get_context("fork" if method == "threading" else method)
            value = ctx.Value("i", 0)
            with tercio.WorkerPool(2, start_method=method, shared_objects=value) as pool:
                pool.map(count, range(6), chunk_size=1)
            assert value.value == 6, value.value
        print("fine")


    if __name__ == "__main__":
        support = os.environ.get("SUPPORT")
        if support:
            {"tercio": tercio, "multiprocessing": multiprocessing}[support].freeze_support()
        depth = int(os.environ.get("DEPTH", "0"))
        os.environ["DEPTH"] = str(depth + 1)
        if depth > 1:
            os._exit(99)  # a program that starts itself without end shall not do so here
        main(os.environ["METHOD"])
"""
SPEC = """
    EXCLUDED = "IPython cloudpickle dill ipykernel ipywidgets numpy pandas psutil pyarrow rich starlette tkinter"
    a = Analysis(["program.py"], excludes=EXCLUDED.split())
    pure = PYZ(a.pure)
    COLLECT(EXE(pure, a.scripts, exclude_binaries=True, name="program"), a.binaries, a.datas, name="folder")
    EXE(pure, a.scripts, a.binaries, a.datas, name="file")
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The program as one folder and as one file."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    (folder / "program.spec").write_text(textwrap.dedent(SPEC))
    command = [sys.executable, "-m", "PyInstaller", "--log-level=ERROR", "program.spec"]
    subprocess.run(command, cwd=folder, check=True, timeout=600, stdin=subprocess.DEVNULL)
    return {"folder": folder / "dist" / "folder" / "program", "file": folder / "dist" / "file"}


def run(frozen, kind, method, support):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DEPTH")}
    environment.update(KIND=kind, METHOD=method, SUPPORT=support)
    return subprocess.run(
        [frozen[kind], "an argument"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=BOUND, check=False,
    )  # fmt: skip


@pytest.mark.contract("1 frozen")
@pytest.mark.timeout(800)
@pytest.mark.parametrize("support", ["tercio", "multiprocessing"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_frozen_program_works(frozen, kind, start_method, support):
    done = run(frozen, kind, start_method, support)
    assert (done.stderr, done.stdout) == ("", "fine\n")


@pytest.mark.contract("1 frozen")
@pytest.mark.timeout(800)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_frozen_program_without_freeze_support_is_refused(frozen, method):
    done = run(frozen, "folder", method, "")
    assert done.returncode == 1
    assert "must call tercio.freeze_support()" in done.stderr.splitlines()[-2]  # the last one is PyInstaller's
    assert done.stdout == ""
