"""What is printed fails on no character and on no stream, and no text from a file gives a terminal orders."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from written_runs import write_run

from model_compression.cli.main import main
from model_compression.core.console import SafeStream, console, harmless, json_text, one_line, safe_streams, table

HOSTILE = "猫\x1b]0;owned\x07\x1b[2J\u202egnp.tac\x9b31m\ud83d\r</td>\n```\n|"
ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def encoded(encoding):
    """A stream as Python makes it for an old terminal or a file on Windows, which raises for other characters."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


def written(stream):
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_stream_takes_every_character(encoding):
    stream = encoded(encoding)
    print("".join(map(chr, range(0x110000))), file=SafeStream(stream))
    assert not ORDERS.search(written(stream))
    shown = {"ascii": "\\u732b -> x 1", "cp1252": "\\u732b -> × 1", "utf-8": "猫 → × 1"}
    stream = encoded(encoding)
    print("猫 → × 1", file=SafeStream(stream))
    assert written(stream) == shown[encoding] + "\n"


def test_harmless_shows_what_was_there():
    assert harmless("a\tb\n\x1b[2J\u202e\x9b") == "a\tb\n\\x1b[2J\\u202e\\x9b"
    assert one_line("a\nb") == "a\\nb"
    assert harmless("ein Bär, 猫, नमस्ते 👩‍🔬") == "ein Bär, 猫, नमस्ते 👩‍🔬"


def test_bars_of_other_libraries_stay_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := encoded("utf-8"))
    with safe_streams():
        for text in ("\r 50%", "\n\n", "\x1b[A\x1b[A", "\r100%\x1b[A"):
            sys.stderr.write(text)
    assert written(stream) == "\r 50%\n\n\x1b[A\x1b[A\r100%\\x1b[A"


def test_rich_keeps_its_colours_and_loses_those_of_the_text(monkeypatch):
    from rich.text import Text

    monkeypatch.setattr(sys, "stdout", stream := encoded("cp1252"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    with safe_streams():
        console().print(Text(f"[b]→ {HOSTILE}", style="red"))
    shown = written(stream)
    assert shown.count("\x1b[31m") >= 1
    assert "[b]-> \\u732b\\x1b]0;owned" in shown
    assert not ORDERS.search(re.sub(r"\x1b\[(31|0)m", "", shown))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "command",
    [
        ["methods"],
        ["runs", "."],
        ["compare", "a", "b"],
        ["report", "a", "b", "--format", "md"],
        ["report", "a", "b", "--out", "page.html"],
        ["data", "folder:photos"],
        ["runs", HOSTILE],
        ["doctor", "--data", HOSTILE],
        [HOSTILE],
    ],
    ids=lambda command: command[0] if command[0] != HOSTILE else "hostile",
)
def test_commands_print_hostile_names_in_any_encoding(command, encoding, tmp_path, monkeypatch):
    hostile = HOSTILE.replace("/", "-").replace("\ud83d", "")
    write_run(tmp_path / "a", data=hostile, classes=(HOSTILE, "bee", "cat", "dog"))
    write_run(tmp_path / "b", None, data=hostile, classes=(HOSTILE, "bee", "cat", "dog"))
    write_run(tmp_path / hostile, data=hostile, seed=3)
    for name in ("猫", "犬"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    out, error = encoded(encoding), encoded(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    code = main(command)
    for stream in (out, error):
        assert not ORDERS.search(written(stream))
    assert code == (2 if HOSTILE in command else 0), written(error)
    if code == 2:
        assert written(error).count("\n") == 1
    for page in tmp_path.glob("*.html"):
        assert not ORDERS.search(page.read_text(encoding="utf-8"))


def test_names_cannot_leave_their_place_in_markdown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "x\n```\n[click](https:evil) <script>|www.evil.com"
    run = write_run(tmp_path / name.replace("/", "-"), data="[a](https://evil.com) <b> me@evil.com")
    assert main(["report", str(run), "--format", "md"]) == 0
    page = capsys.readouterr().out
    fences = [line for line in page.splitlines() if line.startswith("```")]
    assert fences == ["```sh", "```"]
    text, _, code = page.partition("```sh")
    assert re.search(r"(?<!\\)<|(?<!\\)\[|https?:/|www\.|\w@", text) is None
    command = code.strip().splitlines()[0]
    path = subprocess.run(["bash", "-c", f"printf %s {command.split('--config ')[1].split(' --out')[0]}"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert path == str(run / "config.json")


def test_environment_encoding_holds_in_a_process_of_its_own(tmp_path):
    write_run(tmp_path / "猫")
    done = subprocess.run(
        [sys.executable, "-m", "model_compression.cli.main", "runs", str(tmp_path)],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u732b" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_disk_is_a_failure_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "model_compression.cli.main", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


def test_what_is_read_is_what_was_written(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with safe_streams():
            assert isinstance(sys.stderr, SafeStream)
            assert (sys.stderr.isatty(), sys.stderr.fileno(), sys.stderr.encoding) == (False, writer, stream.encoding)
            print("loss 0.5", file=sys.stderr, flush=True)
        assert sys.stderr is stream
    with os.fdopen(reader) as stream:
        assert stream.read() == "loss 0.5\n"


def test_pipe_that_ended_is_no_error_at_any_time():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        lasting = SafeStream(stream, lasting=True)
        os.close(reader)
        for _ in range(3):
            print("loss 0.5", file=lasting, flush=True)
    # closing it has flushed what was left, without BrokenPipeError


def test_stderr_that_there_never_was_becomes_one(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with safe_streams():
        print("loss 0.5", file=sys.stderr, flush=True)
    sys.stderr.close()


TRAIN = ["train", "--data", "synthetic", "--student", "lenet-caffe", "--epochs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed", "a pipe that ends"])
def test_run_goes_on_without_a_stderr(tmp_path, way):
    program = [sys.executable, "-m", "model_compression.cli.main", *TRAIN, "--out", str(tmp_path / "run")]
    if way == "closed":
        done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *program], stdout=subprocess.PIPE, check=False)
        code, out = done.returncode, done.stdout
    else:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as stderr:
            done = subprocess.run(program, stdout=subprocess.PIPE, stderr=stderr, check=False)
        code, out = done.returncode, done.stdout
    assert (code, out.startswith(b"test accuracy")) == (0, True)
    assert (tmp_path / "run" / "metrics.json").exists()


def test_json_has_no_number_that_is_none():
    values = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf"), "d": True, "e": "NaN"}}

    def refuse(constant):
        raise ValueError(constant)

    read = json.loads(json_text(values), parse_constant=refuse)
    assert read == {"a": [None, [None, 1.5]], "b": {"c": None, "d": True, "e": "NaN"}}


def test_commands_print_json_by_one_function_only():
    sources = Path(console.__code__.co_filename).parent / "cli"
    assert [
        path.name for path in sources.glob("*.py") if re.search(r"print\(json\.|text = json\.", path.read_text())
    ] == []


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_prediction_that_is_no_number_is_a_failure_in_one_line(option, tmp_path, monkeypatch, capsys):
    from types import SimpleNamespace

    from model_compression.api import prediction
    from model_compression.exporting.metadata import Metadata

    known = Metadata(
        model="tiny", class_names=("cat", "dog"), image_shape=(3, 8, 8), preprocessing_inside=True, mean=(), std=(),
        channel_order="rgb", data="pets", accuracy=None, weights_sha256="",
    )  # fmt: skip
    broken = SimpleNamespace(metadata=known, run=lambda pixels: np.array([[float("nan"), 1.0]], dtype=np.float32))
    monkeypatch.setattr(prediction, "open_file", lambda path: broken)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["predict", "broken.onnx", str(tmp_path / "a.png"), *option]) == 1
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert "a.png: the file answers with NaN or infinity" in error


def test_a_table_cuts_no_number_and_takes_no_markup(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    rows = [("[bold]a[/bold] :smile:", "1,234.5"), ("two\nlines\x1b[2J", "± 2")]
    assert table(rows, ("name", "number")).splitlines() == [
        "name                     number",
        "───────────────────────────────",
        "[bold]a[/bold] :smile:  1,234.5",
        "two                         ± 2",
        "lines\\x1b[2J",
    ]
    assert table([("a", "1", "b"), ("b", "10")]).splitlines() == ["a   1  b", "b  10"]
    assert table([("a", "1 ± 2"), ("b", "10    ")]) == "a   1 ± 2\nb  10"
    many = table([("word " * 40, *["123456789012"] * 7)]).splitlines()
    assert many[0].split()[-7:] == ["123456789012"] * 7
    assert "".join(many).count("word") == 40
    wide = table([("猫" * 60, "1"), ("x" * 100, "2")]).splitlines()
    assert [cell_len(line) <= 80 for line in wide] == [True] * 4
