"""The report's page as a reader has it: on a telephone and a wide screen, in light and dark, by pointer, on paper."""

import pytest
from written_runs import measured, write_compression, write_run

from model_compression.reports.contents import make_report
from model_compression.reports.html import to_html

# Of every piece of text, what of it lies outside of the window, or is hidden by the box that it is in.
CUT_TEXT = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, parent = text.parentElement;
    if (!text.data.trim() || parent.closest("script, style, .scroll, [hidden]")) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const box of range.getClientRects()) {
      const cut = box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5;
      const hidden = getComputedStyle(parent).overflowX !== "visible" && parent.scrollWidth > parent.clientWidth + 1;
      if (cut || hidden) found.push(text.data.trim());
    }
  }
  return found;
}"""

# Pairs of texts of a chart, or of a row's ticks, that lie upon each other.
OVERLAPS = """() => {
  const found = [];
  for (const group of document.querySelectorAll("svg, .axis .track")) {
    const parts = [...group.querySelectorAll("text, i")];
    const texts = parts.map((part) => [part.textContent, part.getBoundingClientRect()]);
    texts.forEach(([text, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
      if (a.width && b.width && a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
        found.push([text, other]);
    }));
  }
  return found;
}"""

# The smallest contrast of text with what is behind it (WCAG 2.2), over elements with a colour of their own.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const kinds = "h1, h2, h3, p, small, td, th, dt, dd, summary, button, code, figcaption, text";
  let least = 99;
  for (const part of document.querySelectorAll(kinds)) {
    if (!part.getClientRects().length) continue;
    const behind = [];
    for (let at = part; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(part), back = paint(behind);
    const front = paint([part.tagName === "text" ? style.fill : style.color]);
    least = Math.min(least, (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05));
  }
  return least;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports as files: of one run, of several ways with seeds, of one that goes on, and of a compression."""
    folder = tmp_path_factory.mktemp("report")
    classes = (
        "airplane",
        "automobile",
        "a class with a long name",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    for seed in range(2):
        write_run(folder / "runs" / f"kd-{seed}", seed=seed, classes=classes, images=900)
        write_run(folder / "runs" / f"labels-{seed}", None, seed, share=0.4, classes=classes, images=900)
    (folder / "runs" / "kd-0" / "measure.json").write_text(measured(0.5))
    (folder / "runs" / "labels-0" / "student.safetensors").write_bytes(bytes(5200))
    (folder / "runs" / "labels-0" / "measure.json").write_text(measured(0.25))
    going_on = write_run(
        folder / "a-run-folder-with-a-name-as-long-as-those-of-people-who-put-every-option-in-it", done=2
    )
    given = {"one": [folder / "runs" / "kd-0"], "several": [folder / "runs", going_on], "going on": [going_on]}
    given["compressed"] = [write_compression(folder / "small")]
    files = {name: folder / f"{name}.html" for name in given}
    for name, paths in given.items():
        files[name].write_text(to_html(make_report(paths)))
    return files


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["one", "several", "going on", "compressed"])
def test_page_is_whole_and_legible(open_page, pages, name, width, scheme):
    page = open_page(pages[name], width=width, color_scheme=scheme, offline=True)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_TEXT) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("[...document.images].filter((image) => !image.complete || !image.naturalWidth).length") == 0
    assert page.evaluate(CONTRAST) >= 4.5
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 150) == (scheme == "dark")


def test_pointing_at_a_curve_tells_its_figures(open_page, pages):
    page = open_page(pages["one"])
    assert not page.locator("#tip").is_visible()
    place = page.evaluate("""() => {
      const plot = document.querySelector("#curves .plot"), matrix = plot.querySelector("svg").getScreenCTM();
      const [x, y] = plot.lines[0].points[3];
      return [matrix.e + x * matrix.a, matrix.f + y * matrix.d];
    }""")
    page.mouse.move(place[0] + 4, place[1] - 3)
    assert page.locator("#tip").text_content() == "kd: epoch 4: 60.00\u00a0%"
    page.mouse.move(5, 5)
    assert not page.locator("#tip").is_visible()


def test_points_lie_where_the_chart_has_them(open_page, pages):
    page = open_page(pages["one"])
    distance = page.evaluate("""() => {
      const plot = document.querySelector("#curves .plot"), matrix = plot.querySelector("svg").getScreenCTM();
      const drawn = plot.querySelector('[id*="-series-0-"] path').getBoundingClientRect();
      const [x, y] = plot.lines[0].points[0];
      return Math.hypot(matrix.e + x * matrix.a - drawn.left, matrix.f + y * matrix.d - drawn.bottom);
    }""")
    assert distance < 3


def test_a_way_can_be_taken_out_of_the_curves(open_page, pages):
    page = open_page(pages["several"])
    button = page.locator("#curves .legend button").first
    lines = page.locator('#curves [id*="-series-0-"]')
    assert lines.count() >= 2
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not any(line.is_visible() for line in lines.all())
    assert page.locator('#curves [id*="-series-1-"]').first.is_visible()
    button.click()
    assert lines.first.is_visible()


def test_paper_has_all_that_is_folded_away(open_page, pages):
    page = open_page(pages["several"], color_scheme="dark")
    assert page.locator("details:not([open])").count()
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count()
    assert page.pdf().startswith(b"%PDF")
