# SPDX-License-Identifier: MIT
"""Makes the dashboard's pictures of docs/images, in a headless browser.

tools/screenshots.py [FOLDER]
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from tercio import dashboard

HERE = Path(__file__).resolve().parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]  # fmt: skip

PROGRAM = '''
"""Resize pictures."""
import os, random, signal, sys, time
from tercio import WorkerPool


def load_model():
    time.sleep(0.3)


def resize(path, width=640):
    """Scale one picture down.

    Keeps its proportions, and writes the result beside the original.
    """
    time.sleep(random.Random(path).expovariate(25))
    return path


def checksum(path):
    """A picture's SHA-256."""
    time.sleep(0.002)
    if path.endswith("0321.jpg") and "fail" in sys.argv:
        raise ValueError(f"{path} is not a picture: it begins with b'<!doctype'")
    return len(path)


def thumbnail(path):
    """A small picture of a picture."""
    if path.endswith("0150.jpg"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.004)
    return path


if __name__ == "__main__":
    function, n = globals()[sys.argv[1]], int(sys.argv[2])
    paths = [f"holiday/img{number:04}.jpg" for number in range(n)]
    with WorkerPool(n_jobs=4, start_method="forkserver", enable_insights=True) as pool:
        pool.map(function, paths, chunk_size=2, worker_init=load_model, progress_bar=True,
                 progress_bar_style="dashboard")
'''


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Run the program, or what is left of it."""
    script = folder / "pictures.py"
    script.write_text(PROGRAM, "utf-8")
    return subprocess.Popen([sys.executable, script.name, *arguments], cwd=folder, stderr=subprocess.DEVNULL)


def share_done(page: Page, share: int) -> None:
    """Wait until the chosen run has come so far."""
    while int(page.locator("#detail [role=progressbar]").get_attribute("aria-valuenow") or 0) < share:
        time.sleep(0.1)


def main(images: Path, folder: Path) -> None:
    """All pictures."""
    images.mkdir(parents=True, exist_ok=True)
    port = dashboard.start_dashboard([0])["dashboard_port_nr"]
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 960})
        page.goto(f"http://localhost:{port}/")
        page.locator("#empty").wait_for()
        page.screenshot(path=images / "dashboard-empty.png")
        for arguments in (("checksum", "800"), ("thumbnail", "400")):
            start(folder, *arguments).wait()
        start(folder, "checksum", "800", "fail").wait()
        page.locator("#history .run.failed").nth(1).wait_for()
        page.screenshot(path=images / "dashboard-failed.png")
        interrupted = start(folder, "resize", "2000")
        page.locator("#detail h3", has_text="resize").wait_for()
        share_done(page, 5)
        interrupted.send_signal(signal.SIGINT)
        interrupted.wait()
        running = start(folder, "resize", "1500")
        page.locator("#running .run").wait_for()
        share_done(page, 45)
        page.screenshot(path=images / "dashboard.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=images / "dashboard-dark.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.screenshot(path=images / "dashboard-phone.png")
        running.kill()
        running.wait()
        browser.close()
    dashboard.shutdown_dashboard()


if __name__ == "__main__":
    import tempfile

    random.seed(0)
    os.environ.pop("TERCIO_DASHBOARD", None)
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "docs" / "images", Path(temporary))
