"""A headless Chromium, and pages in it whose faults fail the test."""

import os
import shutil
import sys
from pathlib import Path

import pytest

UNPACKED = Path(sys.prefix) / "browser"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium():
    """(executable, variables that it needs): of CHROMIUM, of the PATH, or what `make` has unpacked."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found:
        return found, {}
    if not (UNPACKED / "chromium").exists():
        pytest.fail(
            "no Chromium was found: `make browser` fetches one by npm; or install one, and name it in the variable "
            "CHROMIUM if it is not on the PATH",
            pytrace=False,
        )
    libraries = [str(UNPACKED / "al2023" / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    fonts = {"FONTCONFIG_FILE": str(UNPACKED / "fonts.conf")}
    return str(UNPACKED / "chromium"), {"LD_LIBRARY_PATH": ":".join(filter(None, libraries)), **fonts}


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    executable, variables = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, env={**os.environ, **variables})
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    """Opens a file or an address; at the end the test fails for errors in the console and requests that failed."""
    faults, contexts = [], []

    def open_(address, width=1400, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"{request.url}: {request.failure}"))
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
