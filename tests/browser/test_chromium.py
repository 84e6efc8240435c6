"""The browser that the other tests here drive: it lays out text, and faults of a page are seen."""

import pytest


def write(folder, body):
    page = folder / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><title>t</title><body>{body}")
    return page


def test_chromium_runs_scripts_and_lays_out_text(open_page, tmp_path):
    page = open_page(write(tmp_path, "<span id=a>iii</span><br><span id=b>mmm</span><script>c = 6 * 7</script>"))
    assert page.evaluate("c") == 42
    narrow, wide = (page.locator(f"#{name}").bounding_box()["width"] for name in "ab")
    assert 0 < narrow < wide


def test_chromium_tells_dark_from_light(open_page, tmp_path):
    address = write(tmp_path, "")
    for scheme in ("dark", "light"):
        page = open_page(address, color_scheme=scheme)
        assert page.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")


@pytest.mark.parametrize("body", ["<script>throw Error('x')</script>", "<img src=missing.png>"])
def test_faults_of_a_page_are_seen(browser, tmp_path, body):
    faults = []
    page = browser.new_page()
    page.on("pageerror", lambda error: faults.append(error))
    page.on("requestfailed", lambda failed: faults.append(failed))
    page.goto(write(tmp_path, body).as_uri())
    page.close()
    assert faults
