"""What fresh workers import, and how they come by the main module and by functions."""

from __future__ import annotations

import copyreg
import os
import re
import subprocess
import sys
import textwrap

import pytest
from tercio import WorkerPool, _names, _serialize


def run_script(tmp_path, text, *arguments):
    path = tmp_path / "main.py"
    path.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


LIGHT = """
    import sys
    from tercio import WorkerPool

    def imported(of):
        return sorted(of & set(sys.modules))

    if __name__ == "__main__":
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            print(*pool.apply(imported, ({"_pickle", "functools", "collections", "re", "threading", "types"},)))
"""


def test_a_fresh_worker_imports_pickle_and_nothing_with_it(tmp_path):
    assert run_script(tmp_path, LIGHT, "spawn") == ["_pickle"]  # for the set of names


NAMED = """
    import sys
    from tercio import WorkerPool

    def imported(_):
        return [name for name in ("_pickle", "functools", "collections", "re", "threading") if name in sys.modules]

    if __name__ == "__main__":
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            print(pool.map(imported, [1]))
"""


def test_a_fresh_worker_imports_no_pickle_for_what_has_a_name(tmp_path):
    assert run_script(tmp_path, NAMED, "spawn") == ["[[]]"]


ANNOTATED = """
    import sys
    from tercio import WorkerPool

    def annotations(_: int):
        return annotations.__annotations__["_"] is int, annotations.__code__.co_filename

    if __name__ == "__main__":
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            print(*pool.map(annotations, [1])[0])
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_main_module_means_in_a_worker_what_it_means_here(method, tmp_path):
    assert run_script(tmp_path, ANNOTATED, method) == [f"True {tmp_path / 'main.py'}"]


COMPILED = """
    import os
    import py_compile
    import subprocess
    import sys
    from tercio import WorkerPool

    def name(_):
        return __name__, name.__code__.co_filename

    if __name__ == "__main__":
        if len(sys.argv) == 2:
            # Python runs such a file under any name.
            for compiled in ("main.pyc", "main"):
                py_compile.compile(__file__, cfile=compiled, doraise=True)
                subprocess.run([sys.executable, compiled, sys.argv[1], "compiled"], check=True)
        else:
            with WorkerPool(1, start_method=sys.argv[1]) as pool:
                print(*pool.map(name, [1])[0])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_main_module_may_be_compiled_already(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "__main__" if method == "fork" else "__mp_main__"
    assert run_script(tmp_path, COMPILED, method) == [f"{name} {tmp_path / 'main.py'}"] * 2


CHANGED = """
    import os
    import sys
    from tercio import WorkerPool

    def version(_):
        return VERSION

    VERSION = 1

    if __name__ == "__main__":
        for _ in range(2):
            with WorkerPool(1, start_method=sys.argv[1]) as pool:
                print(pool.map(version, [0])[0])
            with open(__file__) as file:
                text = file.read()
            with open(__file__, "w") as file:
                file.write(text.replace("VERSION = 1", "VERSION = 22"))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_main_module_that_changed_is_read_again(method, tmp_path):
    assert run_script(tmp_path, CHANGED, method) == ["1", "22"]


class Holder:
    @staticmethod
    def static(x):
        return x

    def method(self):
        pass


def outer():
    def inner():
        pass

    return inner


def renamed():
    pass


elsewhere = renamed


@pytest.mark.parametrize("function", [abs, re.compile, Holder.static, outer, os.getpid])
def test_what_has_a_name_travels_by_it(function):
    packed = _names.dump((function, None, abs))
    assert packed is not None
    assert b"\x80" not in packed[:1]
    assert _names.load_call([packed], "pickle") == (function, None, abs)


@pytest.mark.parametrize(
    "function", [outer(), Holder().method, [].append, Holder, str.upper, lambda: 0, _serialize._Spawning("spawn")]
)
def test_what_pickle_knows_better_is_left_to_it(function):
    assert _names.dump((function, None, None)) is None


def test_a_name_that_leads_to_another_function_is_none(monkeypatch):
    assert _names.dump((renamed, None, None)) is not None
    monkeypatch.setitem(globals(), "renamed", outer)
    assert _names.dump((elsewhere, None, None)) is None


def test_a_reducer_of_the_users_has_its_say(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, type(len), lambda function: function.__name__)
    assert _names.dump((len, None, None)) is None


def test_a_name_that_is_gone_is_told():
    packed = _names.dump((renamed, None, None)).replace(b"renamed", b"vanishd")
    with pytest.raises(AttributeError, match="Can't get attribute 'vanishd'"):
        _names.load_call([packed], "pickle")


class Text(str):
    pass


def path_of(_):
    return [type(entry) for entry in sys.path if entry.startswith("/nowhere")]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_path_of_strings_that_are_not_quite_strings(method, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, Text("/nowhere/at/all")])
    with WorkerPool(1, start_method=method) as pool:
        assert pool.map(path_of, [0]) == [[Text]]


def read_input(_):
    return sys.stdin.read(), os.read(0, 10), sys.stdin.encoding


def read_input_in_a_child(_):
    with WorkerPool(1, start_method="fork") as pool:
        return pool.map(read_input, [0])[0], sys.stdin.read()


def test_a_forked_worker_has_no_input_nor_what_was_read_ahead_of_it(tmp_path):
    text = """
        import sys
        sys.path[:] = {path!r}
        from test_fresh_workers import WorkerPool, read_input, read_input_in_a_child

        if __name__ == "__main__":
            line = sys.stdin.readline()
            for _ in range(2):
                with WorkerPool(1, start_method="fork", daemon=False) as pool:
                    print(pool.map(read_input, [0]), pool.map(read_input_in_a_child, [0]))
            print([line, sys.stdin.read()])
    """
    path = tmp_path / "main.py"
    path.write_text(textwrap.dedent(text.format(path=[os.path.dirname(__file__), *sys.path])))
    done = subprocess.run(
        [sys.executable, str(path)], input="one\ntwo\n", capture_output=True, text=True, timeout=100, check=False
    )
    nothing = ("", b"", "utf-8")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{[nothing]} {[(nothing, '')]}"] * 2 + ["['one\\n', 'two\\n']"]


FOUND_BY_HAND = """
    import os
    import sys
    import tercio

    def home(_):
        return os.path.dirname(tercio.__file__)

    if __name__ == "__main__":
        place = os.path.dirname(os.path.dirname(tercio.__file__))
        sys.path[:] = [entry for entry in sys.path if entry != place]
        with tercio.WorkerPool(1, start_method=sys.argv[1]) as pool:
            print(pool.map(home, [0]) == [home(0)])
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_package_is_found_where_the_program_found_it(method, tmp_path):
    assert run_script(tmp_path, FOUND_BY_HAND, method) == ["True"]
