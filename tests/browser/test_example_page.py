"""examples/browser: the file that was exported answers in the browser as it does in Python."""

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_compression.data.dataset import Dataset
from model_compression.exporting.classify import answer, describe
from model_compression.exporting.fewer_bits import to_int8
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.write import Encoding, export
from model_compression.models.loading import load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Of the page, on the loopback."""
    if not (EXAMPLE / "node_modules").exists():
        pytest.fail("onnxruntime-web is not installed: `make browser` fetches it by npm", pytrace=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=EXAMPLE)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The shipped student as student.onnx, without preprocessing as bare.onnx, as int4.onnx; pictures of two sizes."""
    folder = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(20) % 10
    data = Dataset(name="noise", samples=images, labels=labels, class_names=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)
    network = load_model("lenet-cifar10")
    for name, inside in (("student", True), ("bare", False)):
        export(network, folder / f"{name}.onnx", data, preprocessing=inside)
    export(network, folder / "int4.onnx", data, encoding=_int4(network, data))
    across, down = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32))
    pixels = np.stack([255 * across, 255 * down, 255 * (across - down) ** 2], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "small.png")
    Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(folder / "large.png")
    (folder / "no.onnx").write_bytes(b"something else")
    (folder / "no.png").write_bytes(b"no picture")
    return folder


def _int4(network, data):
    encode = partial(to_int8, images=data.images, calibration="minmax", weight_bits=4)
    return Encoding(precision="int4", encode=encode, max_drop=100)


def shown(page):
    """{class: probability} as the page has them, in its order."""
    page.locator("#answer").wait_for()
    rows = page.locator("#answer li")
    return {
        row.locator("span").first.text_content(): float(row.locator("output").get_attribute("data-probability"))
        for row in rows.all()
    }


def classes_of(file, picture):
    opened = open_file(file)
    return list(describe(opened, answer(opened, picture)).classes)


@pytest.mark.parametrize("name", ["student", "bare", "int4"])
def test_browser_answers_as_python_does(open_page, address, files, name):
    page = open_page(address)
    page.set_input_files("#model", files / f"{name}.onnx")
    page.set_input_files("#picture", files / "small.png")
    found = shown(page)
    expected = dict(classes_of(files / f"{name}.onnx", files / "small.png")[:5])
    assert list(found) == list(expected)
    assert max(abs(found[label] - expected[label]) for label in expected) < 1e-4


def test_a_larger_picture_is_scaled_and_cropped(open_page, address, files):
    page = open_page(address, width=400)
    page.set_input_files("#picture", files / "large.png")
    page.set_input_files("#model", files / "student.onnx")
    found = shown(page)
    expected = dict(classes_of(files / "student.onnx", files / "large.png"))
    assert max(abs(found[label] - expected[label]) for label in found) < 0.1  # browsers scale in a way of their own
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        ("#model", "no.onnx", "no.onnx: this is no .onnx file that `model-compression export` has written"),
        ("#picture", "no.png", "no.png: this is no picture that the browser can read"),
    ],
)
def test_files_of_another_kind_are_named(open_page, address, files, place, name, said):
    page = open_page(address)
    page.set_input_files(place, files / name)
    page.wait_for_function("document.querySelector('#state').textContent.startsWith('no.')")
    assert page.locator("#state").text_content() == said
    assert not page.locator("#answer").is_visible()
