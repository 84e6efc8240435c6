"""Runs become rows: which belong together, what they are called, what they gain."""

import json

import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import ttest_rel
from written_runs import write_run

from model_compression.core.config import ModelConfig
from model_compression.core.metric import ACCURACY
from model_compression.reports.groups import gains, group_runs, run_recipe
from model_compression.reports.page_parts import gain_text, p_text
from model_compression.reports.run_files import find_runs, read_run
from model_compression.reports.words import recipe_in_words, sentence


def named(folder, **runs):
    """Names of the groups of runs with these options."""
    for name, options in runs.items():
        write_run(folder / name, **options)
    return [group.name for group in group_runs(find_runs([folder / name for name in runs]))]


def test_seeds_are_one_group_in_their_order(tmp_path):
    for seed in (2, 0, 1):
        write_run(tmp_path / f"kd-seed{seed}", seed=seed)
    (group,) = group_runs(find_runs([tmp_path]))
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert group.summary.n == 3
    assert group.summary.mean == pytest.approx(sum(run.result for run in group.runs) / 3)


def test_a_seed_that_is_there_twice_is_no_second_sample(tmp_path):
    for name, seed, share in (("a", 0, 0.9), ("b", 0, 0.1), ("c", 1, 0.5)):
        write_run(tmp_path / name, seed=seed, share=share)
    groups = group_runs(find_runs([tmp_path]))
    assert [[run.path.name for run in group.runs] for group in groups] == [["a", "c"], ["b"]]
    assert [group.name for group in groups] == ["kd", "kd (2)"]


def test_seeds_that_were_tested_on_other_samples_are_not_averaged(tmp_path):
    digests = {"a": "1a2b", "b": "1a2b", "c": "3c4d", "older": None}  # older runs do not say it
    for seed, (name, digest) in enumerate(digests.items()):
        path = write_run(tmp_path / name, seed=seed) / "environment.json"
        own = {} if digest is None else {"test_data_sha256": digest}
        path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    groups = group_runs(find_runs([tmp_path / name for name in ("a", "b", "older")]))
    assert [[run.path.name for run in group.runs] for group in groups] == [["a", "b", "older"]]
    changed = {group.name: [run.path.name for run in group.runs] for group in group_runs(find_runs([tmp_path]))}
    assert changed == {
        "kd, test data 1a2b": ["a", "b"],
        "kd, test data 3c4d": ["c"],
        "kd, test data unknown": ["older"],
    }
    write_run(tmp_path / "labels", None, seed=2)  # of which data, it does not say
    assert gains(group_runs(find_runs([tmp_path]))) == []


def test_a_rate_that_was_changed_is_another_recipe(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"seed{seed}", seed=seed)
    path = tmp_path / "seed1" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lr_changed_to": 1e-5}))
    assert [group.summary.n for group in group_runs(find_runs([tmp_path]))] == [1, 1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "lr_changed_to": None}))
    assert [group.summary.n for group in group_runs(find_runs([tmp_path]))] == [2]


def test_names_say_what_differs_and_no_more(tmp_path):
    assert named(tmp_path / "a", a={}) == ["kd"]
    assert named(tmp_path / "b", a={"method": None}, b={}, c={"method": "dkd"}) == ["labels only", "kd", "dkd"]
    cold = {"params": {"temperature": 0.3}}
    assert named(tmp_path / "c", a={"params": {"temperature": 4.0}}, b=cold, c={"method": None}) == [
        "kd, temperature 4.0",
        "kd, temperature 0.3",
        "labels only",
    ]
    wide = {"student": ModelConfig(name="cnn"), "epochs": 9}
    assert named(tmp_path / "d", a=wide, b={}) == ["cnn, kd", "lenet, kd"]
    files = [{"student": ModelConfig(name=f"{place}/net.pt")} for place in ("here", "there")]
    assert named(tmp_path / "e", a=files[0], b=files[1]) == ["kd", "kd (2)"]
    views = {
        f"{count}-{dtype}": {"views": count, "teacher_cache_dtype": dtype}
        for count, dtype in ((0, "fp16"), (4, "fp16"), (4, "fp32"))
    }
    assert named(tmp_path / "f", **views) == [
        "kd, fresh views",
        "kd, views 4, teacher cache dtype fp16",
        "kd, views 4, teacher cache dtype fp32",
    ]


def test_where_things_lie_and_new_options_are_of_no_matter(tmp_path):
    config = json.loads((write_run(tmp_path / "a") / "config.json").read_text())
    write_run(tmp_path / "b", seed=1)
    config |= {"seed": 1, "device": "cuda", "teacher_cache": "off", "tensorboard": True}
    del config["compile"], config["method"]["first_stage_epochs"], config["data"]["cutout"]  # of an older version
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    assert len(group_runs(find_runs([tmp_path]))) == 1


def test_gains_are_paired_with_label_only_of_the_same_recipe(tmp_path):
    for seed in range(3):
        for method, share in ((None, 0.4), ("kd", 0.6), ("dkd", 0.5)):
            write_run(tmp_path / f"{method}-seed{seed}", method, seed, share=share + 0.05 * seed * (method == "kd"))
    write_run(tmp_path / "longer", "kd", 0, epochs=8)
    groups = group_runs(find_runs([tmp_path]))
    by_name = {group.name: [run.result for run in group.finished] for group in groups}
    found = {gain.group: gain for gain in gains(groups)}
    assert len(found) == 2  # 8 epochs have no label-only run of as many
    p_values = []
    for gain in found.values():
        own, base = by_name[gain.group], by_name["labels only"]
        expected = ttest_rel(own, base)
        assert gain.gain.mean == pytest.approx(sum(own) / 3 - sum(base) / 3)
        assert gain.gain.p_value == pytest.approx(expected.pvalue)
        assert gain.gain.half_width == pytest.approx(expected.confidence_interval().high - gain.gain.mean)
        p_values.append((expected.pvalue, gain.p_value))
    (small, first), (large, second) = sorted(p_values)
    assert first == pytest.approx(min(1, 2 * small))
    assert second == pytest.approx(max(first, large))


def test_gain_of_one_seed_is_tested_over_the_images(tmp_path):
    for method, share in ((None, 0.4), ("kd", 0.8)):
        write_run(tmp_path / str(method), method, share=share, images=300)
    (gain,) = gains(group_runs(find_runs([tmp_path])))
    files = [load_file(tmp_path / name / "predictions.safetensors") for name in ("kd", "None")]
    kd, labels = (file["student_logits"].argmax(1) == file["targets"] for file in files)
    alone = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((kd, labels), (labels, kd))]
    assert (gain.on_images.only_first, gain.on_images.only_second) == tuple(alone)
    assert gain.on_images.difference == pytest.approx(gain.gain.mean)
    assert p_text(gain) == "< 0.0001"
    assert gain_text(gain, ACCURACY).endswith(" over samples)")
    assert gain.p_value is None  # over seeds there is no test


def test_student_that_began_as_a_file_is_called_by_its_network(tmp_path):
    header = {"model": "pruned", "options": {"body": "sparse", "body_options": {"body": "resnet8"}}}
    for name, start in (("a", "runs/one/final.safetensors"), ("b", "runs/two/final.safetensors")):
        folder = write_run(tmp_path / name, student=ModelConfig(name=start))
        save_file({}, folder / "student.safetensors", {"model_compression": json.dumps(header)})
    runs = find_runs([tmp_path])
    assert {run.network for run in runs} == {"pruned sparse resnet8"}
    assert len(group_runs(runs)) == 2  # what they began as is part of the recipe
    for run in runs:
        recipe = run_recipe(run)
        assert sentence(recipe).startswith("pruned sparse resnet8 on ")
        assert dict(recipe_in_words(recipe))["student"] == "pruned sparse resnet8, starting from final.safetensors"
    assert read_run(write_run(tmp_path / "c")).network is None  # of a file that is none
