"""The examples in the package's docstrings are run, each module's in a process of its own."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest
import tercio

MODULES = ["tercio", *(m.name for m in pkgutil.walk_packages(tercio.__path__, "tercio.") if "__main__" not in m.name)]
CODE = """
import doctest, importlib, sys
module = importlib.import_module(sys.argv[1])
sys.exit(doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed > 0)
"""


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    """What a docstring shows is what happens, and nothing is said on standard error."""
    command = [sys.executable, "-W", "error", "-c", CODE, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
