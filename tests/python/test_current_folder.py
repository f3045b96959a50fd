"""The current folder of a program and of its workers: what is run from it, and what if it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BOUND = 55  # seconds, against a hang


def run_script(folder, text, *arguments):
    path = folder / "main.py"
    path.write_text(textwrap.dedent(text))
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


NESTED = """
    import os
    import sys
    from tercio import WorkerPool

    def double(x):
        return 2 * x

    def here():
        return "" in sys.path or os.getcwd() in sys.path

    def double_in_a_pool(x):
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            return pool.map(double, [x]), here()

    if __name__ == "__main__":
        with WorkerPool(2, start_method=sys.argv[1], daemon=False) as pool:
            print(pool.map(double_in_a_pool, [1]), here())
"""


def plant(folder, marks):
    """Put a module of each name that a program may import into the folder; one that is run leaves a mark."""
    names = {name.partition(".")[0] for name in sys.modules} | set(getattr(sys, "stdlib_module_names", ()))
    for name in names - {"__main__", "__mp_main__", "sys", "builtins"}:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\n")


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """Makes a folder of modules that leave a mark when they are run the current one; returns that of the marks."""
    elsewhere, marks = tmp_path / "elsewhere", tmp_path / "marks"
    elsewhere.mkdir()
    marks.mkdir()
    plant(elsewhere, marks)
    monkeypatch.chdir(elsewhere)
    return marks


@pytest.mark.contract("1 current folder")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_nothing_in_the_current_folder_is_run(method, tmp_path, marks):
    assert run_script(tmp_path, NESTED, method) == ["[([2], False)] False"]
    assert os.listdir(marks) == []


TRACKED = """
    import os
    import sys
    from tercio import WorkerPool

    def register(_):
        from multiprocessing import resource_tracker
        resource_tracker.ensure_running()
        return os.getcwd() in sys.path

    if __name__ == "__main__":
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            print(pool.map(register, [1]))
"""


@pytest.mark.contract("1 current folder")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_resource_tracker_runs_nothing_from_it_either(method, tmp_path, marks):
    assert run_script(tmp_path, TRACKED, method) == ["[False]"]  # it has ended, since it has standard error open
    assert os.listdir(marks) == []


DASHBOARD = """
    from tercio import dashboard

    dashboard.start_dashboard(range(8300, 8400))
    dashboard.shutdown_dashboard()
    print("served")
"""


def test_the_dashboards_server_runs_nothing_from_it_either(tmp_path, marks):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    assert run_script(tmp_path, DASHBOARD) == ["served"]
    assert os.listdir(marks) == []


@pytest.mark.skipif(sys.version_info < (3, 10), reason="an older Python doesn't know the standard library's names")
def test_the_command_runs_nothing_from_it_for_a_function_of_the_standard_library(start_method, marks):
    command = [str(Path(sys.executable).parent / "tercio"), "map", "-m", start_method, "os.path:basename", "a/b", "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.stderr, done.stdout.split()) == ("", ['"b"', '"c"'])
    assert os.listdir(marks) == []


@pytest.mark.contract("1 current folder")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_current_folder_is_on_the_path_where_the_program_has_it(method, tmp_path, monkeypatch):
    (tmp_path / "neighbour.py").write_text("value = 7\n")
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import sys
            from tercio import WorkerPool

            def value(_):
                import neighbour
                return neighbour.value

            if __name__ == "__main__":
                with WorkerPool(1, start_method=sys.argv[1]) as pool:
                    print(pool.map(value, [0]))
        """)
    )
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "program", method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stderr, done.stdout) == ("", "[7]\n")


NOWHERE = """
    import os
    import shutil
    import sys
    from tercio import WorkerPool

    def where(_):
        try:
            open("file", "w").close()
        except FileNotFoundError:
            return "nowhere"
        return os.getcwd()

    if __name__ == "__main__":
        if sys.argv[2] == "server runs":
            with WorkerPool(1, start_method=sys.argv[1]) as pool:
                pool.map(abs, [0])
        os.mkdir("gone")
        os.chdir("gone")
        pool = WorkerPool(1, start_method=sys.argv[1], keep_alive=True)
        if sys.argv[2] == "later":
            pool.map(abs, [0])
        shutil.rmtree(os.path.join(os.path.dirname(__file__), "gone"))
        with pool:
            for _ in range(2):
                print(pool.map(where, [0], worker_lifespan=1)[0])
"""


@pytest.mark.contract("1 removed folder")
@pytest.mark.parametrize("moment", ["server runs", "first", "later"])
def test_a_current_folder_that_was_removed(start_method, moment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_script(tmp_path, NOWHERE, start_method, moment) == ["nowhere"] * 2
    assert not (tmp_path / "file").exists()
