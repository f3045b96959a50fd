"""The examples in the package's docstrings are run, each module's in a process of its own; each public name has one."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import tercio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MODULES = ["tercio", *(m.name for m in pkgutil.walk_packages(tercio.__path__, "tercio.") if "__main__" not in m.name)]
STUBS = Path(tercio.__file__).with_name("_core.pyi")  # what is written in C is documented there
CODE = """
import doctest, importlib, sys
module = importlib.import_module(sys.argv[1])
for name in getattr(module, "__all__", ()):
    getattr(module, name)  # some are fetched on first use
sys.exit(doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed > 0)
"""
STUB_CODE = """
import doctest, sys
runner = doctest.DocTestRunner()
for place, text in enumerate(eval(sys.stdin.read())):
    runner.run(doctest.DocTestParser().get_doctest(text, {}, f"example {place}", None, None))
sys.exit(runner.summarize().failed > 0)
"""


def stubs() -> dict[str, str]:
    """The documentation of what is written in C."""
    found = {}
    for node in ast.parse(STUBS.read_text("utf-8")).body:
        inner = [node, *node.body] if isinstance(node, ast.ClassDef) else [node]
        for each in inner:
            if isinstance(each, (ast.ClassDef, ast.FunctionDef)):
                name = each.name if each is node else f"{node.name}.{each.name}"  # type: ignore[attr-defined]
                found[name] = ast.get_docstring(each) or ""
    return found


def public(module: Any) -> Iterator[tuple[str, str]]:
    """Names of what a module offers, with their documentation."""
    written = stubs()
    for name in module.__all__:
        what = getattr(module, name)
        if inspect.ismodule(what) or not callable(what):
            continue
        yield name, written.get(name) or what.__doc__ or ""
        for inner, member in vars(what).items() if inspect.isclass(what) else ():
            if not inner.startswith("_") and (callable(member) or isinstance(member, (property, classmethod))):
                yield f"{name}.{inner}", written.get(f"{name}.{inner}") or member.__doc__ or ""


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    """What a docstring shows is what happens, and nothing is said on standard error."""
    command = [sys.executable, "-W", "error", "-c", CODE, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_docstrings_of_what_is_written_in_c() -> None:
    """The same for the stubs, which editors and the site show."""
    command = [sys.executable, "-W", "error", "-c", STUB_CODE]
    text = repr([text for text in stubs().values() if ">>>" in text])
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_each_public_name_has_an_example() -> None:
    """Functions, classes, and what classes have; whatever is named in a module's `__all__`."""
    names, without = 0, []
    for name in MODULES:
        module = importlib.import_module(name)
        if any(part.startswith("_") for part in name.split(".")) or not hasattr(module, "__all__"):
            continue
        for inner, text in public(module):
            names += 1
            if ">>>" not in text:
                without.append(f"{name}.{inner}")
    assert without == []
    assert names > 50
