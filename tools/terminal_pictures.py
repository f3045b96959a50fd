# SPDX-License-Identifier: MIT
"""Makes the moving pictures of docs/images: progress bars and tercio top, as they ran on a pseudo-terminal.

tools/terminal_pictures.py [FOLDER]

A picture is an SVG whose frames lie below each other behind a window, and are moved through it at the pace at which
they were recorded. It needs no script and no font of its own; who has asked for less motion sees one frame.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from terminal import Terminal  # noqa: E402

BARS = """
import sys, time
from tercio import WorkerPool

ALBUMS = {"spring": 0.05, "summer": 0.04, "autumn": 0.06, "winter": 0.03, "harbour": 0.05, "garden": 0.04}
LOOK = {"ncols": 84, "mininterval": 0.05,
        "bar_format": "{desc}{percentage:4.0f}% |{bar}| {n_fmt:>3}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"}


def resize(seconds):
    time.sleep(seconds)


def album(worker_id, name):
    with WorkerPool(n_jobs=2, start_method="threading") as pool:
        options = {"position": 1 + worker_id, "desc": f"  {name:8}", "colour": "green", **LOOK}
        pool.map(resize, [ALBUMS[name]] * 90, chunk_size=1, progress_bar=True, progress_bar_options=options)


if __name__ == "__main__":
    with WorkerPool(n_jobs=2, daemon=False, pass_worker_id=True, start_method="forkserver") as pool:
        pool.map(album, list(ALBUMS), chunk_size=1, progress_bar=True,
                 progress_bar_options={"desc": "albums    ", "colour": "cyan", **LOOK})
"""

BUSY = """
import random, time
from tercio import WorkerPool


def load():
    time.sleep(0.4)


def thumbnail(number):
    time.sleep(random.Random(number).expovariate(4))


if __name__ == "__main__":
    with WorkerPool(n_jobs=6, start_method="forkserver") as pool:
        pool.map(thumbnail, range(10_000), chunk_size=1, worker_init=load)
"""

WIDTH, HEIGHT, TOP, SIDE = 8.4, 19.0, 40.0, 16.0  # of a cell, and of the window's frame
PAUSE = 2.5  # seconds that the last frame stays
SHORTEST = 0.08  # seconds between two frames
INK, BACK, SOFT = "#d5dbe3", "#171c22", "#7d8896"
COLOURS = {
    "default": INK, "green": "#56c288", "red": "#e57373", "blue": "#64a9ee", "cyan": "#4fc3d9", "magenta": "#b59af0",
    "brown": "#e0b64f", "black": "#4a5563", "white": INK,
}  # fmt: skip
EIGHTHS = "▏▎▍▌▋▊▉█"
Frame = tuple[tuple[tuple[str, str, bool], ...], ...]  # of rows; of pieces: text, colour, whether it is bold


def look(terminal: Terminal, rows: int) -> Frame:
    """What the screen shows."""
    frame = []
    for y in range(rows):
        pieces: list[tuple[str, str, bool]] = []
        line = terminal.screen.buffer[y]
        for x in range(terminal.screen.columns):
            cell = line[x]
            colour = COLOURS.get(cell.fg, f"#{cell.fg}" if len(cell.fg) == 6 else INK)
            if pieces and pieces[-1][1:] == (colour, cell.bold):
                pieces[-1] = (pieces[-1][0] + cell.data, colour, cell.bold)
            else:
                pieces.append((cell.data, colour, cell.bold))
        frame.append(tuple(pieces))
    return tuple(frame)


def record(terminal: Terminal, rows: int, seconds: float | None) -> list[tuple[float, Frame]]:
    """The frames until the program's end, or for some seconds."""
    begun = time.monotonic()
    frames: list[tuple[float, Frame]] = []
    while terminal.read():
        now = time.monotonic() - begun
        if seconds is not None and now > seconds:
            break
        frame = look(terminal, rows)
        if frames and now - frames[-1][0] < SHORTEST:
            frames[-1] = (frames[-1][0], frame)  # many drawings within one moment
        elif not frames or frame != frames[-1][1]:
            frames.append((now, frame))
    return [each for each in frames if any(text.strip() for row in each[1] for text, _, _ in row)]


def draw_row(row: tuple[tuple[str, str, bool], ...], y: float) -> str:
    """A row: texts, and rectangles for the characters that are ones."""
    out, column = [], 0
    for text, colour, bold in row:
        run, start = "", column
        for char in f"{text}\0":
            block = EIGHTHS.find(char) + 1 if char else 0
            if (block or char == "\0" or char == "━") and run.strip():
                left = len(run) - len(run.lstrip())
                words = run.strip()
                weight = ' font-weight="bold"' if bold else ""
                out.append(
                    f'<text x="{(start + left) * WIDTH:.1f}" y="{y + HEIGHT * 0.72:.1f}" fill="{colour}"{weight} '
                    f'textLength="{len(words) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
                )
            if block or char == "━":
                shape = (y + 3, HEIGHT - 6, block / 8) if block else (y + HEIGHT * 0.42, 3.5, 1)
                out.append((column, *shape, colour))
            if block or char in "\0━":
                run, start = "", column + 1
            else:
                run += char
            column += char != "\0"
    return "".join(joined(out))


def joined(parts: list) -> list[str]:
    """Rectangles that touch are one."""
    found: list[str] = []
    at, n = 0, len(parts)
    while at < n:
        part = parts[at]
        if isinstance(part, str):
            found.append(part)
            at += 1
            continue
        column, top, height, share, colour = part
        end, at = column + share, at + 1
        while at < n and isinstance(parts[at], tuple) and parts[at][0] == end and parts[at][1::3] == (top, colour):
            end, at = parts[at][0] + parts[at][3], at + 1
        found.append(
            f'<rect x="{column * WIDTH:.1f}" y="{top:.1f}" width="{(end - column) * WIDTH:.1f}" '
            f'height="{height:.1f}" fill="{colour}"/>'
        )
    return found


def svg(title: str, command: str, columns: int, rows: int, frames: list[tuple[float, Frame]]) -> str:
    """The frames as a moving picture; `command` is the line that was typed."""
    width, body = columns * WIDTH + 2 * SIDE, (rows + 1) * HEIGHT
    length = frames[-1][0] - frames[0][0] + PAUSE
    steps = "".join(
        f"{(at - frames[0][0]) / length * 100:.2f}%{{transform:translateY({-n * rows * HEIGHT:.0f}px)}}"
        for n, (at, _) in enumerate(frames)
    )
    still = -(len(frames) // 2) * rows * HEIGHT
    drawn = "\n".join(
        "".join(draw_row(row, (n * rows + y) * HEIGHT) for y, row in enumerate(frame))
        for n, (_, frame) in enumerate(frames)
    )
    dots = "".join(f'<circle cx="{SIDE + 6 + 20 * n}" cy="20" r="6" fill="#39424d"/>' for n in range(3))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{TOP + body + SIDE:.0f}" \
viewBox="0 0 {width:.0f} {TOP + body + SIDE:.0f}" role="img" aria-label="{escape(title)}" \
font-family="ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace" font-size="14">
<title>{escape(title)}</title>
<style>
text {{ white-space: pre; }}
.film {{ transform: translateY({still:.0f}px); animation: film {length:.2f}s steps(1) infinite; }}
@keyframes film {{ {steps} }}
@media (prefers-reduced-motion: reduce) {{ .film {{ animation: none; }} }}
</style>
<rect width="100%" height="100%" rx="10" fill="{BACK}"/>
{dots}
<text x="{SIDE}" y="{TOP + HEIGHT * 0.72:.1f}" fill="{SOFT}">$ <tspan fill="{INK}">{escape(command)}</tspan></text>
<svg x="{SIDE}" y="{TOP + HEIGHT:.1f}" width="{columns * WIDTH:.1f}" height="{rows * HEIGHT:.1f}">
<g class="film">
{drawn}
</g>
</svg>
</svg>
"""


def main(images: Path, folder: Path) -> None:
    """Both pictures."""
    images.mkdir(parents=True, exist_ok=True)
    bars = folder / "albums.py"
    bars.write_text(BARS, "utf-8")
    with Terminal(bars, rows=8, columns=86) as terminal:
        frames = record(terminal, 3, None)
    (images / "bars.svg").write_text(
        svg("Progress bars of a pool, and of the pools in its workers", "python albums.py", 86, 3, frames), "utf-8"
    )
    busy = folder / "thumbnails.py"
    busy.write_text(BUSY, "utf-8")
    # As a person would type it, so that no path of the machine that draws gets into the picture.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(["python", busy.name], cwd=folder, env=environment) as running:
        start = folder / "top.py"
        start.write_text("import sys\nfrom tercio._cli import main\nsys.exit(main(['top', *sys.argv[1:]]))\n")
        with Terminal(start, f"{running.pid}", "-n", "0.3", rows=12, columns=86) as terminal:
            frames = record(terminal, 9, 6)
        running.kill()
    (images / "top.svg").write_text(
        svg("tercio top: what the workers of a running process do", f"tercio top {running.pid}", 86, 9, frames),
        "utf-8",
    )


if __name__ == "__main__":
    os.environ.pop("TERCIO_DASHBOARD", None)
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images", Path(temporary))
