"""torch.export's files: what is written holds data alone, and what could be executed is not read."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from model_compression.core.errors import FileFormatError, ModelCompressionError
from model_compression.exporting import programs
from model_compression.exporting.programs import check_programs, read_program, write_program

pytestmark = pytest.mark.torch("2.9")


class Pickled:
    """Makes the file "executed" where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def written(path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=batch)
    write_program(program, path, '{"a": 1}')
    return module


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "good.pt2")
    return tmp_path / "good.pt2"


def pickled(value):
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def in_json(*steps, value):
    """Function of a record's content that puts ``value`` at ``steps`` of its JSON; "*" is the first of all."""

    def change(content):
        place = whole = json.loads(content)
        for step in steps[:-1]:
            place = next(iter(place.values() if isinstance(place, dict) else place)) if step == "*" else place[step]
        place[steps[-1]] = value
        return json.dumps(whole).encode()

    return change


CALL = "__import__('os').system('touch executed')"
NODE = ("graph_module", "graph", "nodes", "*")
HOSTILE = {
    "an example that is pickled": ("data/sample_inputs/model.pt", lambda _: pickled(({"x": Pickled()},))),
    "a weight that is pickled": (
        "data/weights/model_weights_config.json",
        in_json("config", "*", "use_pickle", value=True),
    ),
    "an object": (
        "data/weights/model_weights_config.json",
        in_json("config", "*", "path_name", value="opaque_obj_0"),
    ),
    "guards": ("models/model.json", in_json("guards_code", value=[CALL])),
    "a name that is code": ("models/model.json", in_json(*NODE, "name", value=CALL)),
    "a key that is code": ("models/model.json", in_json("range_constraints", CALL, value={"min_val": 0})),
    "a file that is loaded": ("models/model.json", in_json(*NODE, "target", value="torch.load")),
    "a file that is mapped": ("models/model.json", in_json(*NODE, "target", value="torch.ops.aten.from_file.default")),
    "a library": ("data/aotinductor/model/model.so", lambda _: b"\x7fELF"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_could_be_executed_is_not_read(program, tmp_path, what):
    record, change = HOSTILE[what]
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target:
        names = source.namelist()
        root = names[0].partition("/")[0]
        for name in names:
            content = source.read(name)
            target.writestr(name, change(content) if name == f"{root}/{record}" else content)
        if f"{root}/{record}" not in names:
            target.writestr(f"{root}/{record}", change(b""))
    with pytest.raises(FileFormatError, match=r"bad\.pt2 is no torch.export file that can be read: (it|a tensor)"):
        read_program(tmp_path / "bad.pt2")
    assert not (tmp_path / "executed").exists()


def test_sizes_that_are_code_are_not_read(program, tmp_path):
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("model.json"):
                assert b"Symbol('s" in content
                content = content.replace(b"Symbol('s", b"Symbol(str(open('executed', 'w')) + 's")
            target.writestr(name, content)
    with pytest.raises(FileFormatError, match="its graph has expr_str"):
        read_program(tmp_path / "bad.pt2")
    assert not (tmp_path / "executed").exists()


def test_a_program_comes_back_and_answers_alike(tmp_path):
    module = written(tmp_path / "a.pt2")
    back, metadata = read_program(tmp_path / "a.pt2")
    images = torch.randn(5, 3, 8, 8)
    assert metadata == '{"a": 1}'
    with torch.no_grad():
        assert torch.equal(back(images), module(images))


def test_a_program_is_the_same_wherever_and_as_what_it_is_written(tmp_path):
    written(tmp_path / "a.pt2")
    written(tmp_path / "b.pt2")
    content = (tmp_path / "a.pt2").read_bytes()
    assert content == (tmp_path / "b.pt2").read_bytes()
    assert b"site-packages" not in content
    assert os.fsencode(Path(__file__).parent) not in content


def test_a_torch_that_pickles_weights_is_refused_for_reading_and_writing(program, monkeypatch):
    monkeypatch.delattr(programs.constants, "WEIGHTS_CONFIG_FILENAME_FORMAT")
    for refused in (check_programs, lambda: read_program(program)):
        with pytest.raises(
            ModelCompressionError, match=r"files need torch 2\.9 or newer, got torch .*; upgrade torch, or"
        ):
            refused()
