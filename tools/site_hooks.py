# SPDX-License-Identifier: MIT
"""What the site has beside docs/: the C reference, made of the header's comments; pages that lie in other places."""

from __future__ import annotations

import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "include" / "tercio.h"
ELSEWHERE = {  # pages of the site, and the files of the tree that they are
    "changes.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "usage/index.md": ROOT / "docs" / "usage" / "README.md",
}
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
    """Put the generated pages, and those that lie elsewhere in the tree, among the others."""
    files.append(File.generated(config, "c/reference.md", content=reference(HEADER.read_text("utf-8"))))
    for place, origin in ELSEWHERE.items():
        files.append(File.generated(config, place, content=origin.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files of the tree that are no pages lead nowhere in the site, and become text."""
    # What follows a fence's word is for the tests.
    markdown = re.sub(r"^( *```\w+) [^\n]*$", r"\1", markdown, flags=re.M)
    here = page.file.src_uri
    folder = ELSEWHERE.get(here, ROOT / "docs" / here).parent
    pages = {origin: place for place, origin in ELSEWHERE.items()}

    def keep(match: re.Match[str]) -> str:
        target, mark, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        inside = (folder / target).resolve()
        docs = ROOT / "docs"
        place = pages.get(inside)
        if place is None and inside.suffix in (".md", ".png", ".svg") and docs in inside.parents:
            place = inside.relative_to(docs).as_posix()
        if place is None:
            return f"{match['text']} (`{match['target']}`)"
        return f"[{match['text']}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{mark}{anchor})"

    return re.sub(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", keep, markdown)
