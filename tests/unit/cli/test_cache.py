"""The cache command: what it fills, `distill` reads; what it shows is true; what is damaged or stale, it says."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_compression.cli.main import main
from model_compression.distillation.teachers import shards
from model_compression.distillation.teachers.fingerprint import FORMAT
from model_compression.distillation.teachers.store import AnswerStore
from model_compression.models import create_model
from model_compression.models.weights import save_weights

OPTIONS = ["--data", "tiny", "--student", "tiny", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
FLIP = ["--augmentation", "flip", "--epochs", "3"]


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Function that runs a command and returns (exit code, stdout, stderr); the teacher is teacher.safetensors."""
    monkeypatch.chdir(tmp_path)
    save_weights("teacher.safetensors", create_model("tiny-teacher", seed=7))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def build(command):
    """Function that fills a cache for options and returns what is said of it."""

    def run(*options):
        code, out, err = command("cache", "build", *OPTIONS, "--teacher", "teacher.safetensors", *options, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def replaced(folder, stem, change):
    """Puts other answers into a store, with a good digest, in the form of earlier versions."""
    field = "embedding" if stem.startswith("embedding") else "logits"
    answers = change(load_file(f"{folder}/{stem}-shard-0.safetensors")[field])
    digest = hashlib.sha256(answers.numpy().tobytes()).hexdigest()
    save_file({field: answers}, f"{folder}/{stem}.safetensors", {FORMAT: digest})


def shifted(answers):
    answers[::7] += 0.05 * (answers.max() - answers.min())
    return answers


@pytest.mark.parametrize(("views", "count"), [(0, 3), (2, 2), (8, 3)])
def test_built_cache_is_what_distill_with_the_same_options_reads(command, build, views, count):
    facts = build(*FLIP, "--views", views)
    assert (facts["views"], facts["found"], facts["filled"]) == (count, 0, count)
    assert count * 22 * 3 * 2 < facts["size_bytes"] < count * 22 * 3 * 2 + 5000  # half precision, and headers
    code, _, err = command("distill", *OPTIONS, "--teacher", "teacher.safetensors", *FLIP, "--views", views)
    assert code == 0
    assert "storing" not in err
    _, out, _ = command("cache", "info", "--json")
    (facts,) = json.loads(out)["stores"]
    assert (facts["found"], facts["filled"], facts["hit_rate"]) == (count, count, 0.5)


def test_built_cache_has_embeddings_for_a_method_that_compares_them(command, build):
    facts = build(*FLIP, "--method", "rkd")
    assert (facts["views"], facts["views_with_embeddings"]) == (3, 3)
    code, _, err = command("distill", *OPTIONS, "--teacher", "teacher.safetensors", *FLIP, "--method", "rkd")
    assert code == 0, err
    assert "storing" not in err
    assert "3 views, 3 with embeddings, as fp16" in command("cache", "info")[1]
    assert command("cache", "check")[0] == 0
    replaced(facts["folder"], "embedding-2", shifted)
    code, out, _ = command("cache", "check")
    assert (code, out[:4]) == (1, "BAD ")


def test_views_in_part_are_counted_and_take_the_room_that_is_filled(command, build, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 3)  # of 22 images: 8 blocks in 3 files
    monkeypatch.setattr(shards, "SHARD", 3)
    facts = build(*FLIP, "--method", "rkd")
    folder = Path(facts["folder"])
    assert (facts["views"], facts["views_in_part"], facts["blocks_in_part"]) == (3, 0, [0, 0])
    whole = facts["size_bytes"]
    assert whole == sum(path.stat().st_size for path in folder.iterdir())
    gone = [folder / "view-1-shard-2.safetensors", folder / "embedding-0-shard-0.safetensors"]
    gone += [folder / f"view-2-shard-{number}.safetensors" for number in range(3)]
    room = sum(path.stat().st_size for path in gone)
    for path in gone:
        path.unlink()
    blank = bytearray((folder / "view-0-shard-1.safetensors").read_bytes())
    start = blank.index(b'"sha256": "') + len(b'"sha256": "')
    blank[start + 64 : start + 128] = b"0" * 64  # the second of three blocks is not filled
    (folder / "view-0-shard-1.safetensors").write_bytes(blank)
    (found,) = json.loads(command("cache", "info", "--json")[1])["stores"]
    assert (found["views"], found["views_in_part"], found["blocks_in_part"]) == (0, 2, [6 + 7, 16])
    assert (found["views_with_embeddings"], found["size_bytes"]) == (2, whole - room)
    text = command("cache", "info")[1]
    assert "stored    0 views, 2 with embeddings, and 2 in part (13 of 16 blocks) as fp16, " in text
    assert build(*FLIP, "--method", "rkd")["views"] == 3
    assert json.loads(command("cache", "info", "--json")[1])["stores"][0]["views_in_part"] == 0


def test_room_that_is_set_aside_for_other_blocks_is_not_counted(tmp_path):
    store = AnswerStore(tmp_path)
    with (tmp_path / "view-0-shard-0.safetensors").open("wb") as file:
        file.write(b"x" * 5000)
        file.truncate(2**30)
    if (tmp_path / "view-0-shard-0.safetensors").stat().st_blocks * 512 >= 2**30:
        pytest.skip("this file system fills what is skipped")
    assert 5000 <= store.size_bytes() < 2**20


def test_largest_logits_are_stored_shown_checked_and_read(command, build):
    facts = build(*FLIP, "--teacher-cache-topk", 1)
    assert (facts["views"], facts["topk"]) == (3, 1)
    assert "topk" not in build(*FLIP)
    code, _, err = command("distill", *OPTIONS, "--teacher", "teacher.safetensors", *FLIP, "--teacher-cache-topk", 1)
    assert (code, "storing" in err) == (0, False)
    assert " 3 fp16, top 1 " in command("cache", "info")[1]
    assert "3 views as fp16, the largest logit of each answer and the mass of the rest" in command(
        "cache", "info", Path(facts["folder"]).name)[1]  # fmt: skip
    assert command("cache", "check")[1].count("good ") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher-cache-topk", 3], "--teacher-cache-topk must be below the number of classes, got 3 for 3 classes"),
        (["--teacher-cache-topk", -1], "--teacher-cache-topk must be at least 0, got -1"),
        (["--teacher-cache-topk", 2, "--method", "logits"], "method 'logits' compares all logits as they are"),
        (["--teacher-cache-topk", 2, "--teacher-cache", "off"], "--teacher-cache-topk has no effect here"),
    ],
)
def test_largest_logits_that_cannot_be_are_refused(command, options, message):
    code, _, err = command("distill", *OPTIONS, "--teacher", "teacher.safetensors", "--out", "run", *options)
    assert (code, message in err) == (2, True), err
    assert not Path("run").exists()


def test_build_refuses_a_method_whose_answers_are_not_stored(command):
    code, _, err = command("cache", "build", *OPTIONS, "--teacher", "teacher.safetensors", "--method", "kd,at")
    assert code == 2
    assert "there is nothing to store: the teacher answers live; give a method that compares no features" in err


def test_build_refuses_what_distill_refuses(command):
    options = ("cache", "build", *OPTIONS, "--teacher", "teacher.safetensors")
    code, _, err = command(*options, "--method", "dkd", "--mixup", "0.2")
    assert (code, "mix" in err) == (2, True)
    code, _, err = command("cache", "build", *OPTIONS, "--teacher", "nin-cifar10")
    assert code != 0
    assert "Traceback" not in err


def test_plain_answers_serve_all_views(command, build):
    plain = build(*FLIP, "--teacher-view", "plain")
    assert (plain["views"], plain["augmentation"]) == (1, "none")
    folder = build("--augmentation", "none")["folder"]  # without augmentation the images are plain
    assert plain["folder"] == folder
    code, _, err = command("distill", *OPTIONS, "--teacher", "teacher.safetensors", *FLIP, "--teacher-view", "plain")
    assert (code, "storing" in err) == (0, False)


def test_info_shows_each_store(command, build):
    assert "no answers are stored in " in command("cache", "info")[1]
    build(*FLIP)
    build("--teacher-tta", "flip")
    code, out, _ = command("cache", "info")
    assert code == 0
    stores = json.loads(command("cache", "info", "--json")[1])["stores"]
    assert f"2 stores, {sum(facts['size_bytes'] for facts in stores) / 1e3:.3g} kB, in " in out
    for facts in stores:
        name, views = Path(facts["folder"]).name, facts["views"]
        (row,) = [line for line in out.splitlines() if line.startswith(name[:8])]
        assert f"  {views} fp16  " in row
        assert f"  0 of {views}" in row
        assert ("(flip-averaged)" in row) == (facts["tta"] == "flip")
        code, one, _ = command("cache", "info", name[:8])
        assert (code, one.splitlines()[0]) == (0, facts["folder"])
        assert f"{views} view{'s' * (views > 1)} as fp16" in one
        assert ("averaged with those to mirror images" in one) == (facts["tta"] == "flip")
    assert command("cache", "info", "zz")[0] == 2


def test_check_passes_what_is_good_and_names_what_is_not(command, build):
    folder = build(*FLIP)["folder"]
    build()
    code, out, _ = command("cache", "check")
    assert (code, out.count("good  ")) == (0, 2)
    replaced(folder, "view-1", shifted)
    code, out, _ = command("cache", "check", "--json")
    results = {result["folder"]: result["good"] for result in json.loads(out)["stores"]}
    assert (code, sorted(results.values()), results[folder]) == (1, [False, True], False)
    replaced(folder, "view-1", lambda answers: torch.full_like(answers, torch.nan))
    assert json.loads(command("cache", "check", folder, "--json")[1])["stores"][0]["good"] is False


def test_check_does_not_judge_what_it_cannot_compute_again(command, build):
    given, of_module = Path(build()["folder"]), Path(build("--teacher-tta", "flip")["folder"])
    empty = Path(build(*FLIP)["folder"])
    text = (given / "fingerprint.json").read_text()
    (given / "fingerprint.json").write_text(text.replace('"name": "tiny"', '"name": "python:arrays"'))
    text = json.loads((of_module / "fingerprint.json").read_text())
    text["origin"]["teacher_config"] = {"name": "python:nets:Big"}
    (of_module / "fingerprint.json").write_text(json.dumps(text))
    for path in empty.glob("view-*"):
        path.unlink()
    code, out, _ = command("cache", "check")
    assert (code, out.count("-     ")) == (0, 3)
    assert "not checked: the data 'arrays' was given from Python as an object" in out
    assert "not checked: the network nets:Big was given from Python as an object" in out
    assert "nothing to check: a run was stopped while it stored the first view" in out


@pytest.mark.parametrize("key", ["tta", "dtype", "precision", "teacher", "data"])
def test_store_of_which_something_is_missing_is_shown_as_damaged(command, build, key):
    folder = Path(build()["folder"])
    content = json.loads((folder / "fingerprint.json").read_text())
    for part in content.values():
        part.pop(key, None)
    (folder / "fingerprint.json").write_text(json.dumps(content))
    code, out, _ = command("cache", "info")
    assert (code, "damaged, or of another version" in out) == (0, True)
    assert command("cache", "check")[0] == 1
    assert command("cache", "clear", "--all")[0] == 0
    assert not folder.exists()


def test_check_says_what_differs_when_the_teacher_is_another_by_now(command, build):
    build()
    save_weights("teacher.safetensors", create_model("tiny-teacher", seed=8))
    code, out, _ = command("cache", "check")
    assert code == 1
    assert "holds answers of something else: networks.0.weights_sha256 is " in out


def test_store_that_cannot_be_read_is_shown_beside_the_others_and_can_be_cleared(command, build, tmp_path):
    folder = Path(build()["folder"])
    build(*FLIP)
    (folder / "fingerprint.json").write_text('{"format": "of another time"}')
    code, out, _ = command("cache", "info")
    assert code == 0
    assert f"{folder.name[:8]}  damaged, or of another version; `cache clear` deletes it" in out
    assert "  3 fp16  " in out
    _, out, _ = command("cache", "info", folder.name)
    assert f"{folder}\n  damaged, or of another version; model-compression cache clear {folder.name} deletes it" in out
    assert sorted("damaged" in store for store in json.loads(command("cache", "info", "--json")[1])["stores"]) == [0, 1]
    assert command("cache", "check")[0] == 1
    assert command("cache", "clear", folder.name)[0] == 0
    assert not folder.exists()
    assert command("cache", "check")[0] == 0


def test_clear_needs_to_be_told_what_and_frees_it(command, build, tmp_path):
    folder = build()["folder"]
    build(*FLIP)
    code, _, err = command("cache", "clear")
    assert (code, err) == (
        2,
        "model-compression cache: error: say what to delete: a FOLDER, as `cache info` prints them, or --all\n",
    )
    assert command("cache", "clear", folder)[1].startswith("1 stores deleted, ")
    assert len(json.loads(command("cache", "info", "--json")[1])["stores"]) == 1
    assert json.loads(command("cache", "clear", "--all", "--json")[1])["freed_bytes"] > 132
    assert "no answers are stored" in command("cache", "info")[1]
    assert command("cache", "clear", tmp_path)[0] == 2


def test_named_folder_is_used_and_refused_for_anything_else(command, build, tmp_path):
    facts = build(*FLIP, "--teacher-cache", "answers")
    assert facts["folder"] == "answers"
    assert "no answers are stored" in command("cache", "info")[1]  # in the user's cache
    run = ["distill", *OPTIONS, "--teacher", "teacher.safetensors", *FLIP, "--teacher-cache", "answers"]
    assert command(*run, "--out", "a")[0] == 0
    code, _, err = command(*run, "--view-seed", 1, "--out", "b")
    assert code == 1
    assert "answers holds answers of something else: view_seed is 0 there, 1 here; name another folder" in err
    assert not (tmp_path / "b").exists()


def test_nothing_to_store_is_wrong_usage(command):
    code, _, err = command("cache", "build", *OPTIONS, "--teacher", "teacher.safetensors", "--teacher-cache", "off")
    assert code == 2
    assert "there is nothing to store" in err
    with pytest.raises(SystemExit, match="2"):
        command("cache", "fill")
