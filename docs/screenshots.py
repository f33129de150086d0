# /// script
# requires-python = ">=3.11"
# dependencies = ["playwright==1.56.0", "pillow>=11"]
# ///
"""The README's pictures, taken from a real `dagster dev` on this repository's home and on that of a simulation.

Run `make demo`, `make simulate` and `make simulate SCENARIO=changed-world`, then `uv run docs/screenshots.py`.
It needs a Chromium: CHROMIUM names the program, `chromium` on the PATH by default.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, Playwright, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
EVERYDAY = ROOT / ".loan_assets"
SIMULATED = EVERYDAY / "simulations" / "changed-world"
PICTURES = ROOT / "docs" / "pictures"
PORT = 3117
UI = f"http://127.0.0.1:{PORT}"


def main() -> None:
    """Take every picture anew."""
    with dagster_dev(EVERYDAY), sync_playwright() as play:
        page = opened(play)
        visit(page, "asset-groups", seconds=10)
        page.locator("body").click(position={"x": 900, "y": 700})
        page.keyboard.press("Alt+e")  # expand every group
        page.wait_for_timeout(8_000)
        keep(page, "lineage")
        visit(page, "assets/scorecard?view=events")
        open_picture(page, "ranking")
        keep(page, "scorecard")
        visit(page, "assets/drift_report?view=events", seconds=10)
        open_picture(page, "distances")
        keep(page, "drift_report")
        page.set_viewport_size({"width": 1500, "height": 1100})
        page.goto(newest_report().as_uri())
        page.wait_for_timeout(6_000)
        keep(page, "evidently")
    with dagster_dev(SIMULATED), sync_playwright() as play:
        page = opened(play)
        visit(page, "runs")
        retraining = page.get_by_role("link", name="retrain", exact=True).first
        retraining.evaluate("one => one.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(2_000)
        keep(page, "runs")


def opened(play: Playwright) -> Page:
    """A page of a browser, with nothing in front of Dagster's."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1500, "height": 860})
    page.request.post(f"{UI}/graphql", data={"query": "mutation{setNuxSeen}"})
    return page


def visit(page: Page, path: str, seconds: float = 7) -> None:
    """Open a page of the UI and let it settle."""
    page.goto(f"{UI}/{path}")
    page.wait_for_timeout(seconds * 1_000)


def open_picture(page: Page, name: str) -> None:
    """Open the picture that a metadata row of this name holds."""
    row = page.locator("tr", has=page.get_by_text(name, exact=True)).filter(has_text="Show Markdown")
    row.get_by_text("Show Markdown").first.click()
    page.wait_for_timeout(2_000)


def keep(page: Page, name: str) -> None:
    """Store what is seen, in few colours: a page of words loses nothing by it."""
    places = page.get_by_text(re.compile(r"^/\S+$"))  # where this machine keeps things is nobody's business
    places.evaluate_all("found => found.forEach(one => one.textContent = '/…')")
    shot = page.screenshot()
    seen = Image.open(io.BytesIO(shot)).convert("RGB")
    seen.quantize(96).save(PICTURES / f"{name}.png", optimize=True)


def newest_report() -> Path:
    """Evidently's page of the newest day that was compared."""
    days = sorted((EVERYDAY / "store" / "drift_report").glob("*-*-*"))
    pages = [day / (day / "CURRENT").read_text()[:16] / "report.html" for day in days]
    return [page for page in pages if page.stat().st_size][-1]


@contextmanager
def dagster_dev(home: Path) -> Iterator[None]:
    """`dagster dev` of this repository on a home, ready."""
    command = [str(ROOT / ".venv" / "bin" / "dagster"), "dev", "-h", "127.0.0.1", "-p", str(PORT)]
    environment = {**os.environ, "LOAN_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{UI}/server_info", timeout=1).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


if __name__ == "__main__":
    main()
