# SPDX-License-Identifier: MIT
"""What the site has beside docs/: the C reference, made of the header's comments."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "include" / "tercio.h"
LEADS = ("Caller", "Blocks", "Ownership", "Returns")


def reference(header: str) -> str:
    """The header's calls and types, as Markdown. A comment belongs to the declaration right below it."""
    out = ["# C reference", "", "Made of the comments of `tercio.h`.", ""]
    pattern = re.compile(
        r"/\* ?-{4,} (?P<part>.*?) -{4,} ?\*/|/\*(?P<text>.*?)\*/\n(?P<code>(?:\S.*?)(?:;|\{)[^\n]*\n)", re.S
    )
    for match in pattern.finditer(header):
        if match["part"]:
            out += [f"## {match['part']}", ""]
            continue
        code = match["code"]
        if "{" in code.split("\n", 1)[0]:
            end = header.find("\n}", match.start("code"))
            code = header[match.start("code") : header.find("\n", end + 1) + 1]
        name = re.search(r"\b(tercio_\w+)\s*\(", code) or re.search(r"\b(tercio_\w+);", code)
        if name is None or code.startswith("#"):
            continue
        text = re.sub(r"\n \* ?", "\n", match["text"]).strip().rstrip("*").strip()
        for lead in LEADS:
            text = re.sub(rf"(?<!\w){lead}: ", f"\n\n**{lead}:** ", text)
        text = re.sub(r"\b(tercio_\w+|TERCIO_\w+|_E[A-Z]+)\b", r"`\1`", text).replace("*/", "")
        out += [f"### {name[1]}", "", "```c", textwrap.dedent(code).rstrip(), "```", "", text.replace("<", "&lt;"), ""]
    return "\n".join(out)


def on_files(files: Files, config: Any) -> Files:
    """Put the generated page among the others."""
    files.append(File.generated(config, "c/reference.md", content=reference(HEADER.read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files of the tree that are no pages lead nowhere in the site, and become text."""
    # What follows a fence's word is for the tests.
    markdown = re.sub(r"^( *```\w+) [^\n]*$", r"\1", markdown, flags=re.M)
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def keep(match: re.Match[str]) -> str:
        target = match["target"].split("#")[0]
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        inside = (folder / target).resolve()
        if (
            inside.suffix in (".md", ".png", ".svg")
            and (ROOT / "docs") in inside.parents
            and inside.name != "README.md"
        ):
            return match[0]
        return f"{match['text']} (`{match['target']}`)"

    return re.sub(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", keep, markdown)
