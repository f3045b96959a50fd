"""tools/directions.py: uses run one way, in this tree, and what goes the other way is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent.parent
TOOL = TOP / "tools/directions.py"

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="the tools are not here")


def look_at(tree, *builds):
    """What the tool finds, and its exit code."""
    done = subprocess.run(
        [sys.executable, TOOL, "--root", tree, *builds], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout, done.returncode


@pytest.fixture
def tree(tmp_path):
    """A small tree in order: pool uses state, state uses base, and a package of two modules."""
    for name, text in {
        "engine/base/words.h": "int word(void);\n",
        "engine/base/words.c": '#include "base/words.h"\n\nint word(void)\n{\n    return 1;\n}\n',
        "engine/state/pool.h": '#include "base/words.h"\n',
        "engine/pool/wake.h": "int wake(void);\n",
        "engine/pool/wake.c": '#include "pool/wake.h"\n#include "state/pool.h"\n\nint wake(void)\n{ return word(); }\n',
        "python/ext/core.h": "",
        "python/tercio/__init__.py": "from . import one\n",
        "python/tercio/one.py": "from . import two\n",
        "python/tercio/two.py": "def later():\n    from . import one\n\n    return one\n",
    }.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return tmp_path


def add(tree, name, text):
    with open(tree / name, "a", encoding="utf-8") as file:
        file.write(text)


def build(tree):
    """Compiles the engine's files as the build names them."""
    folder = tree / "build"
    folder.mkdir(exist_ok=True)
    for source in (tree / "engine").rglob("*.c"):
        name = str(source.relative_to(tree / "engine")).replace("/", "_") + ".o"
        subprocess.run(["cc", "-c", "-I", tree / "engine", source, "-o", folder / name], timeout=60, check=True)
    return folder


def test_this_tree_is_in_order():
    assert look_at(TOP) == ("", 0)


def test_a_tree_in_order(tree):
    assert look_at(tree, build(tree)) == ("", 0)


def test_an_include_against_the_order(tree):
    add(tree, "engine/base/words.c", '#include "pool/wake.h"\n')
    out, code = look_at(tree)
    assert code == 1
    assert 'base/words.c uses pool/wake.h (#include "pool/wake.h"), against the order plat < base < channel' in out


def test_headers_that_include_each_other(tree):
    add(tree, "engine/pool/wake.h", '#include "pool/other.h"\n')
    add(tree, "engine/pool/other.h", '#include "pool/wake.h"\n')
    out, code = look_at(tree)
    assert code == 1
    assert "a circle of 2" in out
    assert "pool/other.h uses pool/wake.h" in out


def test_a_call_without_its_header(tree):
    add(tree, "engine/base/words.c", "int wake(void);\nint back(void)\n{\n    return wake();\n}\n")
    assert look_at(tree) == ("", 0)
    out, code = look_at(tree, build(tree))
    assert code == 1
    assert "base/words.c uses pool/wake.c (wake), against the order" in out
    assert "a circle of 2" in out


def test_a_build_that_is_not_whole(tree):
    for i in range(8):
        add(tree, f"engine/pool/more{i}.c", "")
    (tree / "empty").mkdir()
    out, code = look_at(tree, tree / "empty")
    assert (code, "which isn't a whole build" in out) == (1, True)


def test_modules_that_import_each_other(tree):
    add(tree, "python/tercio/two.py", "from . import one\n")
    out, code = look_at(tree)
    assert code == 1
    assert "imports: a circle of 2" in out
    assert "tercio.two uses tercio.one (line 5)" in out


def test_imports_for_types_alone_come_later(tree):
    add(tree, "python/tercio/two.py", "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from . import one\n")
    assert look_at(tree) == ("", 0)
