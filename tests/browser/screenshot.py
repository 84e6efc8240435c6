"""A picture of a page, wide in light beside narrow in dark: python tests/browser/screenshot.py PAGE.html PICTURE.png"""

import io
import os
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from conftest import chromium

HEIGHT, GAP = 1500, 40  # pixels
VIEWS = ((1280, "light"), (400, "dark"))


def main(page: Path, picture: Path) -> None:
    """Writes the picture."""
    executable, variables = chromium()
    shots = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, env={**os.environ, **variables})
        for width, scheme in VIEWS:
            opened = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            opened.goto(page.resolve().as_uri())
            shots.append(Image.open(io.BytesIO(opened.screenshot())).convert("RGB"))
        browser.close()
    whole = Image.new("RGB", (sum(shot.width for shot in shots) + GAP, HEIGHT), "#ffffff")
    place = 0
    for shot in shots:
        whole.paste(shot, (place, 0))
        place += shot.width + GAP
    whole.save(picture, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
