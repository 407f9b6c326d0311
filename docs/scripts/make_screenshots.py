"""Take docs/assets' pictures of pages from the output of `make demo`: `python -m docs.scripts.make_screenshots [DEMO_FOLDER]`.

Needs Chromium (Debian's `chromium`) and playwright, which `make setup` installs.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from microaction.export.report import page_name

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "docs" / "assets"
SHOWN_VIDEO, SHOWN_S = "two_people.mp4", 17.5
DESKTOP, PHONE = (1180, 940), (390, 844)
SCALE = 1.5  # pictures are shown at up to this many pixels per pixel


def main() -> None:
    """Take all pictures."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").absolute()
    report = demo / "labels" / "report"
    video = report / "videos" / page_name(str(demo / "interviews" / SHOWN_VIDEO))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, path, size in (
            ("page-video.png", video, DESKTOP),
            ("page-video-phone.png", video, PHONE),
            ("page-archive.png", report / "index.html", DESKTOP),
        ):
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, device_scale_factor=SCALE)
            page.goto(path.as_uri())
            if path == video:
                show_moment(page)
            page.screenshot(path=ASSETS / name)
            page.close()
        browser.close()


def show_moment(page: Any) -> None:
    """Move a video's page to a moment, and hide the controls over the picture."""
    page.evaluate(
        """(seconds) => new Promise((done) => {
          const video = document.getElementById('video');
          video.controls = false;
          video.addEventListener('seeked', () => setTimeout(done, 300), {once: true});
          video.currentTime = seconds;
        })""",
        SHOWN_S,
    )


if __name__ == "__main__":
    main()
