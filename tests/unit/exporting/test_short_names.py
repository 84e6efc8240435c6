"""Short names in ONNX files: fewer bytes, the same answers, and names that others refer to are kept."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_compression.exporting.runtimes import open_file
from model_compression.exporting.runtimes.onnx import rewrite
from model_compression.exporting.short_names import with_short_names
from model_compression.exporting.write import write_unverified
from model_compression.models import create_model

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


def test_answers_stay_to_the_bit_and_only_inputs_and_outputs_keep_their_names(tmp_path):
    path = tmp_path / "a.onnx"
    write_unverified(create_model("resnet8", seed=0).eval(), path, (3, 32, 32), preprocessing=True)
    before, graph, size = open_file(path).run(PIXELS), onnx.load(path).graph, path.stat().st_size
    rewrite(path, with_short_names)
    after = onnx.load(path).graph
    assert np.array_equal(open_file(path).run(PIXELS), before)
    assert [value.name for value in (*after.input, *after.output)] == [v.name for v in (*graph.input, *graph.output)]
    names = {tensor.name for tensor in after.initializer} | {name for node in after.node for name in node.output}
    own = {value.name for value in after.output}
    assert max(map(len, names - own)) <= 2
    assert len(names) == len(graph.initializer) + sum(len(node.output) for node in graph.node)
    assert path.stat().st_size < size - 1000


def tiny(*nodes, inputs=("a",), output="b"):
    """A model of nodes, whose input is called as the first short name is."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in inputs]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "a weight")
    return helper.make_model(helper.make_graph(nodes, "graph", values, [result], [weight]), ir_version=10)


def test_names_that_are_kept_are_not_given_again():
    model = tiny(helper.make_node("Add", ["a", "a weight"], ["between"]), helper.make_node("Relu", ["between"], ["b"]))
    graph = with_short_names(model).graph
    assert graph.initializer[0].name not in ("a", "b")
    assert (graph.node[0].input[0], graph.node[1].output[0]) == ("a", "b")
    assert graph.node[0].input[1] == graph.initializer[0].name != graph.node[0].output[0] == graph.node[1].input[0]
    onnx.checker.check_model(model)


def test_an_input_that_is_left_out_stays_so():
    model = tiny(helper.make_node("Clip", ["a", "", "a weight"], ["b"]))
    assert list(with_short_names(model).graph.node[0].input)[:2] == ["a", ""]


@pytest.mark.parametrize("kind", ["If", "annotation"])
def test_models_whose_insides_refer_to_names_are_left_as_they_are(kind):
    inner = tiny(helper.make_node("Identity", ["a weight"], ["b"]), inputs=()).graph
    model = tiny(helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner))
    if kind == "annotation":
        model = tiny(helper.make_node("Add", ["a", "a weight"], ["b"]))
        model.graph.quantization_annotation.add().tensor_name = "a weight"
    before = model.SerializeToString()
    assert with_short_names(model).SerializeToString() == before
