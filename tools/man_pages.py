# SPDX-License-Identifier: MIT
"""Writes man pages of the C face, made of the comments of tercio.h: one for each call, and tercio(3) for all of them.

python3 tools/man_pages.py HEADER VERSION FOLDER
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

LEADS = {"Caller": "CALLER", "Blocks": "BLOCKING", "Ownership": "OWNERSHIP", "Returns": "RETURN VALUE"}
PIECES = re.compile(r"/\*(?P<comment>.*?)\*/|TERCIO_API (?P<code>[^;]*;)(?:[ \t]*/\*(?P<behind>.*?)\*/)?", re.S)


@dataclass
class Page:
    """Calls that share a comment."""

    text: str
    calls: dict[str, str] = field(default_factory=dict)  # name -> declaration


def unwrap(comment: str) -> str:
    """Give a comment's text as one paragraph."""
    return " ".join(re.sub(r"\n *\*? ?", "\n", comment).split())


def parse(header: str) -> list[Page]:
    """Find each call with the comment right before it, or on its line; calls in a row share what comes before them."""
    pages: list[Page] = []
    comment, end, fresh = "", 0, True
    for match in PIECES.finditer(header):
        if "\n\n" in header[end : match.start()]:
            fresh = True
        end = match.end()
        if match["comment"] is not None:
            comment, fresh = unwrap(match["comment"]), True
            continue
        code = " ".join(re.sub(r" TERCIO_PRINTF\(.*\)", "", match["code"]).split())
        found = re.search(r"\b(tercio_\w+)\(", code)
        if found is None:
            continue
        if match["behind"]:
            pages.append(Page(unwrap(match["behind"])))
        elif fresh or not pages:
            pages.append(Page(comment))
        pages[-1].calls[found[1]] = code
        fresh = bool(match["behind"])
    return pages


def escape(text: str) -> str:
    """Protect what would be an instruction to the formatter."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def bold_names(text: str) -> str:
    """Set names of calls and errors in bold."""
    return re.sub(r"\b((?:tercio|TERCIO)_\w+)", r"\\fB\1\\fR", escape(text))


def write_page(page: Page, version: str, folder: Path) -> None:
    """One page, and a reference to it for each further call."""
    names = list(page.calls)
    first = re.split(r"(?<=[a-z)])[.:;] ", page.text, maxsplit=1)[0].rstrip(".")
    out = [f'.TH {names[0].upper()} 3 "" "tercio {version}" "The C face of tercio"', ".SH NAME"]
    out += [f"{', '.join(names)} \\- {escape(first)}", ".SH SYNOPSIS", ".nf", "#include <tercio.h>", ""]
    for code in page.calls.values():
        out += [escape(line) for line in textwrap.wrap(code, 76, subsequent_indent="    ")]
    out += [".fi", ".SH DESCRIPTION"]
    parts = re.split(rf"\b({'|'.join(LEADS)}): ", page.text)
    out.append(bold_names(parts[0].strip()))
    for lead, text in zip(parts[1::2], parts[2::2]):
        out += [f".SH {LEADS[lead]}", bold_names(text.strip())]
    out += [".SH SEE ALSO", ".BR tercio (3)", ""]
    (folder / f"{names[0]}.3").write_text("\n".join(out), "utf-8")
    for name in names[1:]:
        (folder / f"{name}.3").write_text(f".so man3/{names[0]}.3\n", "utf-8")


def write_overview(header: str, pages: list[Page], version: str, folder: Path) -> None:
    """What holds for all calls, the types, the errors, and the list of the calls."""
    about = re.search(r"/\* SPDX[^\n]*\n \*\n \* tercio: (?P<what>[^\n]*)\n(?P<text>.*?)\*/", header, re.S)
    if about is None:
        raise SystemExit("man_pages: the header doesn't begin as it should")
    out = [f'.TH TERCIO 3 "" "tercio {version}" "The C face of tercio"', ".SH NAME"]
    out += [f"tercio \\- {escape(about['what'].rstrip('.'))}", ".SH SYNOPSIS", ".nf", "#include <tercio.h>", ""]
    out += ["cc program.c $(pkg\\-config \\-\\-cflags \\-\\-libs tercio)", ".fi", ".SH DESCRIPTION"]
    for paragraph in re.split(r"\n \*\n", about["text"]):
        out += [".PP", bold_names(unwrap(paragraph))]
    out += [".SH TYPES", ".nf"]
    for block in re.findall(r"^typedef (?:struct|enum) \{.*?^\} \w+;|^typedef [^{\n]*;[^\n]*", header, re.S | re.M):
        out += [escape(block), ""]
    out += [".fi", ".SH ERRORS"]
    for number, name, text in re.findall(r'X\((-\d+), (TERCIO_\w+), "([^"]*)"\)', header):
        out += [".TP", f"\\fB{name}\\fR ({escape(number)})", escape(text)]
    out += [".SH CALLS"]
    for page in pages:
        out += [f".BR {name} (3)" for name in page.calls]
    (folder / "tercio.3").write_text("\n".join([*out, ""]), "utf-8")


def main(header_path: str, version: str, folder_path: str) -> None:
    """Write all pages."""
    header, folder = Path(header_path).read_text("utf-8"), Path(folder_path)
    if "DESTDIR" in os.environ:  # an installation into a place that becomes / later
        folder = Path(os.environ["DESTDIR"]) / folder.relative_to(folder.anchor)
    folder.mkdir(parents=True, exist_ok=True)
    pages = parse(header)
    for page in pages:
        write_page(page, version, folder)
    write_overview(header, pages, version, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
