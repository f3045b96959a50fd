"""Every code block of the documentation is run.

A fence's first word decides: ``python`` and ``c`` are programs, ``pycon`` is a session whose output is compared,
``sh`` and ``console`` are commands (in ``console`` the lines that begin with ``$ ``). Another word (``text``, ``toml``)
is not code. Behind ``python``, ``methods=all`` (or ``methods=fork,spawn``) has the block run once for each start
method, which is put into its ``WorkerPool(...)`` calls. An HTML comment ``<!-- skip: reason -->`` right before a block
leaves it out; ``<!-- continues -->`` puts the Python blocks before it in the same file in front of it.
"""

from __future__ import annotations

import doctest
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tercio import WorkerPool

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TERCIO_BUILD", ROOT / "build" / "c"))
BOUND = 50  # seconds, against a hang
RUNNABLE = {"python", "pycon", "c", "sh", "console"}
METHODS = ("fork", "spawn", "forkserver", "threading")
NOT_CODE = {"text", "toml", "ini", "json", "yaml", "make", "meson", "diff"}

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<word>[^\s`]*)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.M | re.S
)
COMMENT = re.compile(r"<!--\s*(?P<word>skip|continues)\b:?\s*(?P<reason>(?:(?!-->).)*?)\s*-->\s*\Z", re.S)


@dataclass
class Block:
    """One fenced block."""

    path: Path
    line: int
    word: str
    body: str
    mark: str = ""
    reason: str = ""
    method: str = ""

    @property
    def name(self) -> str:
        """How the test is called."""
        return f"{self.path.relative_to(ROOT)}:{self.line}-{self.word or 'none'}" + (self.method and f"-{self.method}")


def find_blocks(path: Path, text: str) -> list[Block]:
    """The fenced blocks of one file."""
    blocks = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in match["body"].splitlines(keepends=True))
        block = Block(path, text.count("\n", 0, match.start()) + 1, match["word"], body)
        comment = COMMENT.search(text, 0, match.start())
        if comment:
            block.mark, block.reason = comment["word"], comment["reason"]
        methods = re.search(r"\bmethods=(\S+)", match["info"])
        if methods is None:
            blocks.append(block)
            continue
        for method in METHODS if methods[1] == "all" else methods[1].split(","):
            assert method in METHODS, f"{block.name}: {method} is no start method"
            blocks.append(replace(block, method=method))
    return blocks


def documents() -> list[Path]:
    """All files that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


BLOCKS = [block for path in documents() if path.exists() for block in find_blocks(path, path.read_text("utf-8"))]


def bounded(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that has to succeed, with nothing on standard error."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=BOUND, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout


def run_python(block: Block, folder: Path) -> None:
    """Run as a script: what spawn and notebooks need of a main module is part of what is documented."""
    before = ""
    if block.mark == "continues":
        earlier = [b.body for b in BLOCKS if b.path == block.path and b.line < block.line and b.word == "python"]
        before = "\n".join(earlier) + "\n"
    script = folder / "example.py"
    text = before + block.body
    if block.method:
        assert "start_method" not in text, "the block names a start method already"
        text = text.replace("WorkerPool(", f"WorkerPool(start_method={block.method!r}, ")
        assert block.method in text, "no pool is made"
    script.write_text(text, "utf-8")
    bounded([sys.executable, "-W", "error", str(script)], folder)


def run_pycon(block: Block, folder: Path) -> None:
    """Compare a session with its output, in a process of its own."""
    session = folder / "session.txt"
    session.write_text(block.body, "utf-8")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    code = f"import doctest, sys; sys.exit(doctest.testfile({str(session)!r}, False, optionflags={flags}).failed > 0)"
    bounded([sys.executable, "-W", "error", "-c", code], folder)


def run_c(block: Block, folder: Path) -> None:
    """Compile against the library that was built, as pkg-config tells; run what has a main."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    uninstalled = BUILD / "meson-uninstalled"
    assert uninstalled.is_dir(), f"{BUILD} holds no build of the library: run 'make test'"
    env = {**os.environ, "PKG_CONFIG_PATH": str(uninstalled), "LD_LIBRARY_PATH": str(BUILD / "engine")}
    asked = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "tercio"], env=env, capture_output=True, text=True, check=True
    )
    source = folder / "example.c"
    source.write_text(block.body, "utf-8")
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    if re.search(r"^int\s+main\b", block.body, re.M) is None:
        bounded([compiler, *strict, "-c", str(source), *asked.stdout.split()], folder, env)
        return
    bounded([compiler, *strict, str(source), "-o", "example", *asked.stdout.split()], folder, env)
    bounded([str(folder / "example")], folder, env)


def run_shell(block: Block, folder: Path) -> None:
    """Run commands in a copy of nothing: they see the environment's tools, not the tree."""
    lines = block.body.splitlines()
    if block.word == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    script = folder / "commands.sh"
    script.write_text("set -e\n" + "\n".join(lines) + "\n", "utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bounded(["sh", str(script)], folder, {**os.environ, "PATH": path})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_block(block: Block, tmp_path: Path) -> None:
    """What a reader copies works."""
    if block.mark == "skip":
        assert block.reason, "a block is left out only for a reason"
        pytest.skip(block.reason)
    if block.word in NOT_CODE:
        return
    assert block.word in RUNNABLE, f"a block needs a word behind its fence: {sorted(RUNNABLE | NOT_CODE)}"
    assert block.body.strip(), "an empty block"
    run = {"python": run_python, "pycon": run_pycon, "c": run_c, "sh": run_shell, "console": run_shell}[block.word]
    run(block, tmp_path)


def test_blocks_are_found() -> None:
    """A finder that finds nothing would pass everything."""
    text = "a\n\n```python\nx = 1\n```\n\n<!-- skip: far -->\n\n- item\n\n  ```sh\n  ls\n  ```\n\n```\nplain\n```\n"
    python, shell, plain = find_blocks(ROOT / "a.md", text)
    assert (python.word, python.line, python.body, python.mark) == ("python", 3, "x = 1\n", "")
    assert (shell.word, shell.body, shell.mark, shell.reason) == ("sh", "ls\n", "", "")
    assert (plain.word, plain.body) == ("", "plain\n")
    skipped = find_blocks(ROOT / "a.md", "<!-- skip: needs a net -->\n```sh\ncurl\n```\n")[0]
    assert (skipped.mark, skipped.reason) == ("skip", "needs a net")
    second = find_blocks(ROOT / "a.md", "<!-- skip: a -->\n```sh\nb\n```\n\n<!-- continues -->\n```sh\nc\n```\n")[1]
    assert (second.mark, second.reason) == ("continues", "")
    everywhere, somewhere = "```python methods=all\nx\n```\n", "```python methods=fork,spawn\nx\n```\n"
    assert [block.method for block in find_blocks(ROOT / "a.md", everywhere + somewhere)] == [*METHODS, "fork", "spawn"]
    if (ROOT / "README.md").exists():
        assert any(block.word == "python" for block in BLOCKS)


def test_each_parameter_is_in_the_table() -> None:
    """The page of all parameters has each one, in order, with its default, and none that isn't there."""
    text = (ROOT / "docs" / "usage" / "parameters.md").read_text("utf-8")
    tables = {}
    for section in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\|", section, re.M)
        for name in re.findall(r"`(\w+)", section.partition("\n")[0]):
            tables[name] = rows
    for name in ("WorkerPool", "map", "map_unordered", "imap", "imap_unordered", "apply", "apply_async"):
        call = WorkerPool if name == "WorkerPool" else getattr(WorkerPool, name)
        taken = [parameter for parameter in inspect.signature(call).parameters.values() if parameter.name != "self"]
        told = [row for row in tables[name] if name in ("WorkerPool", "map") or row[0] != "concatenate_numpy_output"]
        has = [(each.name, "" if each.default is each.empty else repr(each.default)) for each in taken]
        assert told == has, name


def test_links_lead_somewhere() -> None:
    """Links between documents, and to files of the tree."""
    for path in documents():
        if not path.exists():
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
            if re.match(r"[a-z]+:|#", target):
                continue
            file, _, anchor = target.partition("#")
            assert (path.parent / file).exists(), f"{path.relative_to(ROOT)}: {target}"
            if anchor and file.endswith(".md"):
                titles = re.findall(r"^#+ (.*)$", (path.parent / file).read_text("utf-8"), re.M)
                slugs = {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
                assert anchor in slugs, f"{path.relative_to(ROOT)}: {target}"
