"""Short names in ONNX files: in a small network in few bits, the names of tensors take as many bytes as the weights."""

from collections.abc import Iterator
from itertools import count, product
from string import ascii_lowercase, digits
from typing import Any


def with_short_names(model: Any) -> Any:
    """``model`` with short names inside, and none for nodes; its inputs and outputs keep theirs.

    A model with graphs inside of nodes, which may refer to names outside, is left as it is.
    """
    graph = model.graph
    if model.functions or graph.sparse_initializer or graph.quantization_annotation or _has_inner_graphs(graph):
        return model
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names = (name for name in _shortest() if name not in kept)
    found = {name: name for name in kept}

    def short(name: str) -> str:
        if name not in found:
            found[name] = next(names)
        return found[name]

    for node in graph.node:
        node.name = node.doc_string = ""
        for values in (node.input, node.output):
            values[:] = [short(name) for name in values]
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    del graph.value_info[:]  # shapes of what is inside, which a runtime finds itself
    return model


def _has_inner_graphs(graph: Any) -> bool:
    return any(entry.HasField("g") or entry.graphs for node in graph.node for entry in node.attribute)


def _shortest() -> Iterator[str]:
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, *[ascii_lowercase + digits] * (length - 1)))
