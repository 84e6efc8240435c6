"""The picture of a network: valid, complete, the same bytes each time."""

import xml.etree.ElementTree as ET
from collections import OrderedDict

import matplotlib
import pytest
from torch import nn

from model_compression.models import MODELS, Network, create_model
from model_compression.models.drawing import draw
from model_compression.models.drawing_shapes import ROOM, shape_text
from model_compression.models.layer_row import Slab, build_slabs, split_into_rows
from model_compression.models.summary import Layer, summarize

# Deeper siblings of networks that are drawn.
DEEP = {"resnet14", "resnet32", "resnet44", "resnet56", "resnet110", "resnet32x4", "wrn_16_2", "wrn_40_1", "wrn_40_2"}


def words_of(picture):
    """All texts in an SVG file, which must be well-formed XML."""
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name not in DEEP])
def test_drawing_names_every_layer_with_its_shape(name):
    summary = summarize(create_model(name, seed=0))
    words = words_of(draw(summary, name))
    together = " ".join(words)
    assert name in words
    for layer in summary.layers:
        assert layer.name.rpartition(".")[2] in together
    for slab in build_slabs(summary)[1:]:
        assert words.count(slab.layer.name) >= (1 if slab.block else 2)  # in the list, and as a label but for its block
        assert shape_text(slab.layer.shape) in words
    assert all("nan" not in word for word in words)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("lenet", "3,497,866", "27.53 M"), ("nin", "966,986", "222.5 M")]
)
def test_drawing_has_the_totals(name, parameters, macs):
    words = words_of(draw(summarize(create_model(name)), name))
    assert any(f"{parameters} parameters" in word and f"{macs} MACs" in word for word in words)
    assert {parameters, macs} <= set(words)


def test_drawing_has_a_panel_and_a_heading_for_each_block():
    words = words_of(draw(summarize(create_model("whitening-cnn")), "w"))
    assert [word for word in words if word.startswith("block") and "." not in word] == ["block1", "block2", "block3"]


def test_drawing_gives_the_same_bytes_whatever_the_weights_and_the_users_style():
    first = draw(summarize(create_model("lenet", seed=0)), "lenet")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert draw(summarize(create_model("lenet", seed=1)), "lenet") == first


def test_drawing_leaves_matplotlibs_settings_as_they_were():
    with matplotlib.rc_context({"font.size": 31}):
        before = dict(matplotlib.rcParams)
        draw(summarize(create_model("lenet")), "lenet")
        assert dict(matplotlib.rcParams) == before


def test_drawing_takes_any_title_as_text():
    assert "a < b & $x$" in words_of(draw(summarize(create_model("lenet")), "a < b & $x$"))


def test_drawing_shows_layers_it_has_no_picture_for():
    layers = OrderedDict(flatten=nn.Flatten(), soft=nn.Softplus(), ip=nn.Linear(12, 3))
    words = words_of(draw(summarize(Network(layers), (3, 2, 2)), "odd"))
    assert words.count("Softplus") == 2
    assert "other layer" in words


def layer(number, width):
    name = f"layer{number}"
    return Layer(name=name, kind="linear", text="", short="x" * width, shape=(8,), parameters=0, macs=0)


@pytest.mark.parametrize("count", [1, 5, 14, 15, 40])
def test_rows_hold_all_slabs_in_order_and_fit_the_page(count):
    slabs = [Slab(layer(number, 10 + number % 7)) for number in range(count)]
    rows = split_into_rows(slabs)
    assert [slab for row in rows for slab in row] == slabs
    widths = [sum(slab.slot for slab in row) for row in rows]
    assert max(widths) <= ROOM
    assert max(widths) - min(widths[:-1], default=0) <= ROOM


def test_rows_are_about_equally_long():
    rows = split_into_rows([Slab(layer(number, 10)) for number in range(20)])
    assert [len(row) for row in rows] == [10, 10]


def test_drawing_wraps_a_deep_network():
    layers = OrderedDict(flatten=nn.Flatten()) | {f"ip{number}": nn.Linear(12, 12) for number in range(30)}
    words = words_of(draw(summarize(Network(OrderedDict(layers)), (3, 2, 2)), "deep"))
    assert all(words.count(f"ip{number}") == 2 for number in range(30))
