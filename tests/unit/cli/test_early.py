"""Typing errors are found in a moment, with the error that there would be later, and other tools' options are known."""

import subprocess
import sys

import pytest

from model_compression.cli.early import check_early, names, shipped
from model_compression.cli.hints import _ALIASES
from model_compression.cli.main import COMMANDS, main
from model_compression.core.errors import ModelCompressionError


def test_names_in_the_source_are_those_that_are_registered():
    from model_compression.data.sources import DATASETS
    from model_compression.distillation.methods import METHODS
    from model_compression.models import MODELS
    from model_compression.models.weights import shipped_weights

    registries = {"methods": METHODS, "models": MODELS, "data": DATASETS}
    for part, registry in registries.items():
        own = [
            name for name in registry.names() if registry.get(name).__module__.startswith(("model_comp", "functools"))
        ]
        assert names(part) == own, part
    assert shipped() == list(shipped_weights())


TYPOS = [
    (["distill", "--method", "kdd"], 2, "unknown method 'kdd'; did you mean 'kd'"),
    (["distill", "--method", "kd+att"], 2, "unknown method 'att'; did you mean 'at'"),
    (["compare-methods", "--methods", "kd,rkdd"], 2, "unknown method 'rkdd'; did you mean 'rkd'"),
    (["methods", "kdd"], 2, "unknown method 'kdd'"),
    (["distill", "--student", "lenett"], 2, "unknown model 'lenett'; did you mean 'lenet'"),
    (["distill", "--teacher", "nin-cifar10,nin-cifar11"], 2, "unknown model 'nin-cifar11'; did you mean 'nin-cifar10'"),
    (["doctor", "--teacher", "runs/none"], 2, "runs/none does not exist"),
    (["test", "--model", "nowhere"], 2, "unknown model 'nowhere'"),
    (["train", "--student", "my_nets:small"], 2, "cannot import 'my_nets' of 'my_nets:small': ModuleNotFoundError"),
    (["train", "--augmentation", "flpi"], 2, "unknown augmentation 'flpi'; did you mean 'flip'?"),
    (["test", "--model", "nin-cifar10", "--precision", "fp61"], 2, "unknown precision 'fp61'; did you mean 'fp16'"),
    (["train", "--device", "gpu"], 2, "device must be auto, cpu, cuda or mps, got 'gpu'"),
    (["train", "--data", "cifar11"], 2, "unknown dataset 'cifar11'; did you mean 'cifar10'"),
    (["data", "cifar11"], 2, "unknown dataset 'cifar11'; did you mean 'cifar10'"),
    (["train", "--data", "folder:none"], 2, "none is not there; expected a folder"),
    (["train", "--recipe", "lenet-cifar"], 2, "unknown recipe 'lenet-cifar'; did you mean 'lenet-cifar10'"),
    (["train", "--lr", "1x"], 2, "--lr must be a finite number, got '1x'"),
    (["train", "--epochs", "2.5"], 2, "--epochs must be an integer, got '2.5'"),
    (["train", "--batch-size", "0"], 2, "--batch-size must be at least 1, got 0"),
    (["quantize", "nin-cifar10", "--to", "int9"], 2, "unknown precision 'int9'; did you mean 'int8'"),
    (["test", "--model", "nin-cifar10", "--split", "tset"], 2, "unknown --split 'tset'; did you mean 'test'"),
    (["resume", "nowhere"], 2, "nowhere is not there; expected the folder of a run"),
]


def test_typing_errors_are_found_without_torch(tmp_path):
    """All in one process, which has no torch at the end."""
    code = (
        "import sys, json\nfrom model_compression.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n        code = main(words)\n    except SystemExit as ended:\n        code = ended.code\n"
        "    print(code, flush=True)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, words"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([words for words, _, _ in TYPOS])],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert len(lines) == len(TYPOS), done.stderr
    for (words, code, message), found, line in zip(TYPOS, done.stdout.split(), lines, strict=True):
        assert (int(found), line.startswith(f"model-compression {words[0]}: error: {message}")) == (code, True), line


@pytest.mark.parametrize("case", TYPOS, ids=lambda case: " ".join(case[0]))
def test_what_is_found_early_is_what_would_be_found_late(case, tmp_path, monkeypatch, capsys):
    import torch  # noqa: F401  (where it is there already, nothing is looked at early)

    words, expected, message = case
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert (code, error.startswith(f"model-compression {words[0]}: error: {message}")) == (expected, True), error


def test_what_there_is_passes():
    class Args:
        student, teacher, data, device = "lenet", "hf:some,timm:resnet18", "hf:any,label=x", "cuda"
        model, method, methods = "hub:a/b", "kd+os:path", "all"

    args = Args()
    vars(args).update({key: value for key, value in vars(Args).items() if not key.startswith("_")})
    try:
        check_early("distill", args)
    except ModelCompressionError as error:  # pragma: no cover
        pytest.fail(str(error))


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("distill", "--learning-rate", "--lr"),
        ("distill", "--temperature=4", "--param temperature=X"),
        ("distill", "--alpha", "--label-weight W, of the labels, or --weight TERM=W, of a term of the method"),
        ("train", "--amp", "--precision bf16 or --precision fp16"),
        ("train", "--fp16", "--precision bf16 or --precision fp16"),
        ("quantize", "--int8", "--to"),
        ("distill", "--pretrained", "--student-option pretrained=true, --teacher-option pretrained=true"),
        ("test", "--pretrained", "--option pretrained=true"),
        ("train", "--num-workers", "--workers"),
        ("train", "--num_workers=4", "--workers"),
        ("train", "--bs", "--batch-size"),
        ("train", "-b", "--batch-size"),
        ("train", "--batch_size", "--batch-size"),
        ("train", "--gpu", "--device cuda"),
        ("train", "--dataset", "--data"),
        ("compress", "--data-path", "--data folder:PATH"),
        ("train", "--arch", "--student"),
        ("verify", "--arch", "--model"),
        ("distill", "--weights", "--student-weights FILE, or --student FILE to go on from it"),
        ("export", "--checkpoint", "--weights FILE"),
        ("export", "--output-dir", "--out"),
        ("report", "-o", "--out"),
        ("train", "--resume", "model-compression resume RUN, which continues an interrupted run"),
        ("predict", "--topk", "--top"),
        ("prune", "--amount", "--macs SHARE, --params SHARE or --latency SHARE"),
        ("train", "--epoch", "--epochs"),
        ("prune", "--low-rnak", "--low-rank"),
    ],
)
def test_options_of_other_tools_name_ours(command, typed, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, typed, "1"])
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert error == f"model-compression {command}: error: unrecognized argument: {typed}; did you mean {meant}?\n"


def test_every_option_that_is_advised_is_one_of_some_subcommand(capsys):
    known = ""
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known += capsys.readouterr().out
    for meant, aliases in _ALIASES.items():
        for word in [word.rstrip(",:") for word in meant.split() if word.startswith("--")]:
            assert f"  {word} " in known or f"{word} " in known, word
        assert len(set(aliases.split())) == len(aliases.split()), meant


def test_recipes_are_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "lenet-distilled-cifar10" in shown.replace("- ", "-")


def test_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "model_compression", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("model-compression ")
