"""The report as a page, as Markdown and as JSON: what it says, and that nothing from files becomes markup."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from written_runs import measured, write_compression, write_run, write_weights

from model_compression.cli.main import main
from model_compression.core.config import ModelConfig
from model_compression.reports.contents import make_report, to_plain
from model_compression.reports.html import to_html
from model_compression.reports.markdown import to_markdown

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements with their attributes, ids, and text without that of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.text, self._inside = [], Counter(), "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids.update(value for name, value in attributes if name == "id")
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.text += data.replace("\u00a0", " ")

    def count(self, tag):
        return sum(found == tag for found, _ in self.elements)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """kd and labels only with three seeds, and one of dkd that goes on."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    for seed in range(3):
        write_run(folder / f"kd-{seed}", seed=seed)
        write_run(folder / f"labels-{seed}", None, seed, share=0.4)
    write_run(folder / "dkd-0", "dkd", done=2)
    return folder


def test_page_of_one_run_says_what_was_found(tmp_path):
    report = make_report([write_run(tmp_path / "r", images=250)])
    page = Page(to_html(report))
    detail = report.details[0].found
    low, high = detail.accuracy.interval
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} % (Wilson), n = 250 images" in page.text
    assert f"{100 * detail.calibration.ece:.2f} %" in page.text
    assert f"{detail.agreement.only_teacher:,}" in page.text
    assert page.count("svg") == 3  # accuracy, loss, reliability
    assert page.count("img") == len(detail.mistakes) > 0
    assert "lenet on animals, kd from nin-cifar10, 4 epochs" in page.text
    assert f"model-compression distill --config {tmp_path}/r/config.json --out {tmp_path}/r-again" in page.text


def test_page_of_several_compares_means_over_seeds(runs):
    report = make_report([runs])
    page = Page(to_html(report))
    summary = next(group for group in report.groups if group.name == "kd").summary
    assert f"{100 * summary.mean:.2f} ± {100 * summary.half_width:.2f} %" in page.text
    assert "n = 3 seeds, test" in page.text
    assert "is not finished: 2 of 4 epochs are done" in page.text
    assert [gain.group for gain in report.gains] == ["kd"]


def test_page_of_a_run_without_results_has_its_curves(tmp_path):
    page = Page(to_html(make_report([write_run(tmp_path / "r", done=1)])))
    assert page.count("svg") == 2
    assert "not finished: no result yet" in page.text
    assert Page(to_html(make_report([write_run(tmp_path / "s", done=0)]))).count("svg") == 0


def test_page_needs_no_other_file_and_names_each_id_once(runs):
    text = to_html(make_report([runs]))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert max(page.ids.values()) == 1


def test_nothing_from_files_becomes_markup(tmp_path):
    classes = (EVIL, "a'b\"c", "{{ 7 * 7 }}", "$x^2$")
    folder = tmp_path / "<i>r</i>"
    for name, options in ((EVIL, {}), ("$y$", {"seed": 1})):
        student = ModelConfig(name="net", options={"<u>k</u>": name})
        write_run(folder / f"{options}", classes=classes, student=student, data="</style>" + EVIL, **options)
    environment = folder / "{}" / "environment.json"
    environment.write_text(json.dumps({"processor": EVIL, "torch": "<b>"}))
    report = make_report([folder])
    page = Page(to_html(report))
    assert page.count("script") == page.count("style") == 1
    assert page.count("u") == 0
    assert EVIL in page.text
    assert "{{ 7 * 7 }}" in page.text
    outside_of_code = re.sub(r"```.*?```", "", to_markdown(report), flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|i|u|b)>", outside_of_code)


def test_data_of_a_python_program_have_no_command(tmp_path):
    page = Page(to_html(make_report([write_run(tmp_path / "r", data="python:arrays")])))
    assert "# trained from Python" in page.text
    assert "--config" not in page.text


def test_diverged_losses_leave_the_page_whole(tmp_path):
    folder = write_run(tmp_path / "r", done=3)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_loss": Infinity, "test_accuracy": NaN}\n')
    lines = [json.loads(a["data-lines"]) for _, a in Page(to_html(make_report([folder]))).elements if "data-lines" in a]
    assert [len(line["points"]) for chart in lines for line in chart] == [3, 3]


def test_many_classes_are_shown_by_their_largest_confusions(tmp_path):
    classes = tuple(f"kind {number}" for number in range(30))
    page = Page(to_html(make_report([write_run(tmp_path / "r", classes=classes, images=900)])))
    assert "The 20 lowest of 30 classes" in page.text
    assert "The most frequent confusions of 30 classes" in page.text


def test_latency_is_drawn_where_it_was_measured(tmp_path):
    for name, method, milliseconds in (("a", "kd", 0.5), ("b", "dkd", 0.25)):
        (write_run(tmp_path / name, method) / "measure.json").write_text(measured(milliseconds))
    write_weights(tmp_path / "b", 2500)
    page = Page(to_html(make_report([tmp_path])))
    charts = [attributes["aria-label"] for _, attributes in page.elements if "data-lines" in attributes]
    assert charts[2:5] == ["Size", "Latency in PyTorch", "Latency in ONNX Runtime"]
    assert "PyTorch, batch 1, 2 threads: 0.5 ms" in page.text


def test_latency_that_was_disturbed_is_marked_on_the_page(tmp_path):
    for name, method, milliseconds in (("a", "kd", 0.5), ("b", "dkd", 0.25)):
        values = json.loads(measured(milliseconds))
        values["latency"][0]["disturbed"] = name == "b"
        (write_run(tmp_path / "runs" / name, method) / "measure.json").write_text(json.dumps(values))
    page = Page(to_html(make_report([tmp_path / "runs"])))
    assert "PyTorch, batch 1, 2 threads: 0.5 ms (disturbed)" in page.text
    assert page.text.count("(disturbed)") == 1
    compression = write_compression(tmp_path / "small")
    values = json.loads((compression / "stages.json").read_text())
    values["stages"][-1]["disturbed"] = True
    (compression / "stages.json").write_text(json.dumps(values))
    text = Page(to_html(make_report([compression]))).text
    assert "0.100 ms * (disturbed)" in re.sub(r"\s+", " ", text)
    assert "its latency was measured on a busy machine" in text


def test_stages_of_a_compression_are_on_every_page(tmp_path, capsys):
    folder = write_compression(tmp_path / "small", broken=["700 bytes, at most 600 are allowed"])
    page = Page(to_html(make_report([folder])))
    charts = [attributes["aria-label"] for _, attributes in page.elements if "data-lines" in attributes]
    assert charts[2:4] == ["Size", "Latency"]
    said = re.sub(r"\s+", " ", page.text)
    assert "Last stage, which does not ship700 bytesint8, 57.00 %, 4 times as fast as distilled in PyTorch" in said
    assert "The budget is not kept: 700 bytes, at most 600 are allowed." in said
    assert "pruned, PyTorch 2,500 bytes * 1,234 58.00 % 57.0 to 59.0 % 0.410 ms int8" in said  # slower than distilled
    text = to_markdown(make_report([folder]))
    assert "| int8 | ONNX Runtime | 700 * | 1,234 | 5,678 | 57.00% | 56.00 to 58.00% | 0.100 * | 0.200 |" in text
    assert "The budget is not kept: 700 bytes, at most 600 are allowed." in text
    assert main(["report", str(folder), "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["compressions"]
    written = json.loads((folder / "stages.json").read_text())
    assert (found["path"], found["threads"], found["broken"]) == (str(folder), 2, written["broken"])
    assert [{key: one[key] for key in written["stages"][0]} for one in found["stages"]] == written["stages"]


@pytest.mark.parametrize(
    "text", ["[", "{}", '{"stages": [], "threads": 2, "broken": []}', '{"stages": [3]}', '{"stages": [{"name": "a"}]}']
)
def test_damaged_stages_are_named(tmp_path, text):
    folder = write_compression(tmp_path / "small")
    (folder / "stages.json").write_text(text)
    (said,) = make_report([folder]).left_out
    assert re.search(r"small/stages\.json is (not what `model-compression compress` writes|damaged): ", said)


def test_sizes_that_are_all_but_equal_are_not_drawn(tmp_path):
    for name, method, count in (("a", "kd", 5000), ("b", "dkd", 5040)):
        write_weights(write_run(tmp_path / name, method), count)
    assert "Size" not in to_html(make_report([tmp_path]))


def test_markdown_has_a_row_for_each_group_with_results(runs):
    text = to_markdown(make_report([runs]))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| kd", "| labels only"]
    assert {row.count(" | ") for row in rows} == {8}
    assert "3 seeds, 200 test images" in rows[1]
    assert "kd over labels only: +" in text


def test_json_holds_the_same_figures(runs, capsys):
    assert main(["report", str(runs), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    report = make_report([runs])
    assert found == json.loads(json.dumps(to_plain(report)))
    by_name = {group["name"]: group for group in found["groups"]}
    accuracies = [run["metrics"]["test_accuracy"] for run in by_name["kd"]["runs"]]
    assert by_name["kd"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 3)
    assert sum(map(sum, by_name["kd"]["detail"]["confusion"])) == 200
    assert by_name["dkd"]["accuracy"] is None


def test_command_writes_by_the_ending_of_the_file(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text() == to_html(make_report([runs]))
    assert main(["report", str(runs), "--out", "figures.md"]) == 0
    assert (tmp_path / "figures.md").read_text() == to_markdown(make_report([runs]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "htm"], "did you mean 'html'"),
        (["--out", "report.pdf"], "--out must end in .html, .md, .json"),
        (["--out", "."], "is a folder"),
    ],
)
def test_command_refuses_what_it_cannot_write(runs, options, said, capsys):
    assert main(["report", str(runs), *options]) == 2
    assert said in capsys.readouterr().err
