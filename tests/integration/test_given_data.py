"""distill() on PyTorch datasets, DataLoaders and images without labels."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.engine.runs import start_run
from model_compression.models.weights import read_header

CONFIG = TrainConfig(
    student=ModelConfig(name="x"), batch_size=5, precision="fp32", device="cpu", optim=OptimConfig(lr=1e-2)
)


def net(seed, num_classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (33, 3, 8, 8), dtype=np.uint8)
    return images[:22], np.arange(22) % 3, images[22:], np.arange(11) % 3


class Pictures(torch.utils.data.Dataset):
    """Arrays as PIL images with labels, or without."""

    def __init__(self, images, labels=None):
        self.images, self.targets = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        image = Image.fromarray(self.images[number].transpose(1, 2, 0))
        return image if self.targets is None else (image, int(self.targets[number]))


def pictures(arrays):
    return Pictures(*arrays[:2]), Pictures(*arrays[2:])


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.state_dict().values()])


def distilled(data, run_dir, teacher=None, config=CONFIG, **options):
    return mc.distill(teacher or net(0), net(1), data, epochs=2, run_dir=run_dir, config=config, **options)


def test_arrays_of_any_layout_train_alike(arrays, tmp_path):
    expected = distilled(arrays, tmp_path / "plain")
    last = [arrays[0].transpose(0, 2, 3, 1).copy(), arrays[1], arrays[2].transpose(0, 2, 3, 1).copy(), arrays[3]]
    turned = [part.transpose(0, 3, 1, 2) if part.ndim == 4 else part for part in last]
    frozen = [part.copy() for part in arrays]
    for part in frozen:
        part.flags.writeable = False
    names = np.array(["ape", "bee", "cat"])
    forms = {
        "transposed": turned,
        "permuted": [
            torch.from_numpy(part).permute(0, 3, 1, 2) if part.ndim == 4 else torch.from_numpy(part) for part in last
        ],
        "reversed": [part[::-1].copy()[::-1] for part in arrays],
        "read-only": frozen,
        "big-endian": [part if part.ndim == 4 else part.astype(">i4") for part in arrays],
        "named": [part if part.ndim == 4 else names[part] for part in arrays],
        "names as objects": [part if part.ndim == 4 else names[part].astype(object) for part in arrays],
    }
    for name, data in forms.items():
        found = distilled(data, tmp_path / name)
        assert torch.equal(weights(found.student), weights(expected.student)), name
    header = read_header(tmp_path / "named" / "student.safetensors")
    assert header["facts"]["class_names"] == ["ape", "bee", "cat"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), r"uint8 of shape \(0, 3, 8, 8\); .* at least two images$"),
        (lambda images, labels: (images / 255, labels), r"float64 of .*: give \(images \* 255\)\.round\(\)"),
        (lambda images, labels: (images > 9, labels), r"bool of .*: give images\.astype\(np\.uint8\) \* 255"),
        (lambda images, labels: (images, labels[:, None]), r"labels\[:, 0\] where it is one number"),
        (lambda images, labels: (images, labels + 1), r"labels must be 0…K−1; got 1…3: subtract 1"),
        (
            lambda images, labels: (images, [["a"], ["a", "b"]] * (len(labels) // 2)),
            r"several classes of a sample are a row",
        ),
        (lambda images, labels: ([images[0], images[1][:, 1:]], labels[:2]), r"images must have one size"),
        (lambda images, labels: (images, labels / 2), r"answers two images with \(2, 3\); expected 1 number for each"),
    ],
)
def test_arrays_that_cannot_serve_are_refused_with_the_remedy(arrays, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        distilled([*change(*arrays[:2]), *change(*arrays[2:])], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_and_test_of_other_classes_are_refused(arrays, tmp_path):
    pair = pictures(arrays)
    pair[0].classes, pair[1].classes = ["ape", "bee", "cat"], ["ape", "cat"]  # as ImageFolder numbers what it finds
    with pytest.raises(UsageError, match="have other classes: only one of them has bee, so that a class number means"):
        distilled(pair, tmp_path / "run")
    settings = {"name": "x", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    sets = [
        Dataset(samples=arrays[n], labels=arrays[n + 1], class_names=names, **settings)
        for n, names in ((0, ("ape", "bee", "cat")), (2, ("cat", "bee", "ape")))
    ]
    with pytest.raises(ModelCompressionError, match="x and x have other classes, or another order of them: 'ape' and"):
        distilled(sets, tmp_path / "run")


def test_test_images_of_another_size_are_said_or_refused_before_training(arrays, tmp_path, watcher):
    data = (*arrays[:2], arrays[2][:, :, :7], arrays[3])
    with pytest.raises(UsageError, match=r"the student cannot take images of \(3, 7, 8\), as arrays-test has"):
        distilled(data, tmp_path / "run")
    nets = [nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for _ in range(2)]
    seen = watcher()
    mc.distill(*nets, data, epochs=1, run_dir=tmp_path / "run", config=CONFIG, observer=seen)
    assert any("training images are of 3 × 8 × 8, test images of 3 × 7 × 8" in message for message in seen.messages)


def test_what_is_odd_about_the_data_is_said_before_the_first_step(arrays, tmp_path, watcher):
    seen = watcher()
    labels = np.where(arrays[1] == 2, 0, arrays[1])
    distilled((arrays[0], labels, arrays[0][:11], arrays[3]), tmp_path / "run", observer=seen)
    assert any("no training images of 2" in message for message in seen.messages)
    assert any("11 of 11 test images are training images too" in message for message in seen.messages)


@pytest.mark.parametrize(("resident", "workers"), [("auto", None), ("off", 0), ("off", 2)])
def test_torch_data_sets_train_as_their_arrays_do(arrays, tmp_path, resident, workers):
    data = DataConfig(augmentation="flip", resident=resident, workers=workers)
    config = dataclasses.replace(CONFIG, data=data)
    expected = distilled(arrays, tmp_path / "arrays", config=config)
    found = distilled(pictures(arrays), tmp_path / "torch", config=config)
    # Mean and deviation are rounded to five decimals in one of them.
    torch.testing.assert_close(weights(found.student), weights(expected.student), rtol=1e-3, atol=1e-3)
    assert found.metrics["test_accuracy"] == expected.metrics["test_accuracy"]
    assert '"name": "python:Pictures"' in (tmp_path / "torch" / "config.json").read_text()


def normalised(images):
    return (torch.from_numpy(images).float() / 255 - 0.4) / 0.2


def loaders(arrays, **options):
    parts = [TensorDataset(normalised(arrays[n]), torch.as_tensor(arrays[n + 1])) for n in (0, 2)]
    return DataLoader(parts[0], batch_size=5, **options), DataLoader(parts[1], batch_size=4)


def test_loaders_are_taken_as_they_are_and_it_is_said(arrays, tmp_path, watcher):
    """Against the training loop written out, on the very batches."""
    seen, data = watcher(), loaders(arrays)
    result = distilled(data, tmp_path / "run", observer=seen, params={"temperature": 2.0})
    teacher, student = net(0), net(1)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(2):
        for images, labels in data[0]:
            with torch.no_grad():
                soft = (teacher(images) / 2).log_softmax(1)
            answer = student(images)
            kd = 4 * nn.functional.kl_div((answer / 2).log_softmax(1), soft, log_target=True, reduction="batchmean")
            optimizer.zero_grad()
            (0.9 * kd + 0.1 * nn.functional.cross_entropy(answer, labels)).backward()
            optimizer.step()
    torch.testing.assert_close(weights(result.student), weights(student), rtol=1e-3, atol=1e-4)
    correct = (student(normalised(arrays[2])).argmax(1).numpy() == arrays[3]).mean()
    assert result.metrics["test_accuracy"] == pytest.approx(correct)
    (said,) = (line for line in seen.messages if "the DataLoaders are taken as they are: " in line)
    assert "a resumed run does not end with the weights of an uninterrupted one" in said
    assert seen.answered == []
    assert not any("one colour" in message for message in seen.messages)  # 0 and 1/255 are no mean, no deviation


def test_run_on_loaders_says_what_its_network_takes(arrays, tmp_path):
    config = TrainConfig(student=ModelConfig(name="x"), precision="fp32", device="cpu")
    distilled(loaders(arrays), tmp_path / "run", config=config)
    assert '"batch_size": 5' in (tmp_path / "run" / "config.json").read_text()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "network(images)  # (B, C, H, W) float32, normalised as the training DataLoader's batches were" in card
    assert "in batches of 5" in card
    with pytest.raises(UsageError, match="batch_size 7 has no effect on DataLoaders; these give batches of 5"):
        distilled(loaders(arrays), tmp_path / "other", config=dataclasses.replace(config, batch_size=7))


def test_network_of_loaders_is_given_the_normalisation_that_it_needs(tiny, arrays, tmp_path, capsys):
    run = mc.distill(str(tiny.teacher), "tiny", loaders(arrays), epochs=1, run_dir=tmp_path / "run", config=CONFIG)
    command = [
        "test",
        "--model",
        str(run.run_dir),
        "--data",
        "tiny",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--json",
    ]
    assert main(command) == 2
    assert "knows how their pixels were normalised; give that mean and std" in capsys.readouterr().err
    assert main([*command, "--mean", "0.4,0.4,0.4", "--std", "0.2,0.2,0.2"]) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    test = tiny.data()[1]
    with torch.no_grad():
        answers = run.student(normalised(test.images)).argmax(1).numpy()
    assert found == pytest.approx((answers == test.labels).mean())


def test_named_networks_leave_the_batches_of_loaders_alone(tiny, arrays, tmp_path):
    data = loaders(arrays)
    teacher = mc.load_model(str(tiny.teacher))
    result = mc.distill(str(tiny.teacher), "tiny", data, epochs=1, run_dir=tmp_path / "run", config=CONFIG)
    with torch.no_grad():
        expected = {"teacher": teacher.eval()(normalised(arrays[2])), "student": result.student(normalised(arrays[2]))}
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    for role, logits in expected.items():
        torch.testing.assert_close(found[f"{role}_logits"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["noisy_teacher", "crd", "mgd", "kd,noisy_teacher"])
def test_methods_that_must_know_which_image_is_which_are_refused_for_loaders(arrays, tmp_path, method):
    with pytest.raises(UsageError, match=f"method '{method}' needs to know which image is which, and a DataLoader"):
        distilled(loaders(arrays), tmp_path / "run", method=method)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augmentation": "flip"}, "augmentation 'flip' has no effect on DataLoaders"),
        ({"mixup": 0.2}, "mixup 0.2 has no effect on DataLoaders"),
        ({"resident": "on"}, "resident 'on' has no effect on DataLoaders"),
        ({"workers": 2}, "workers 2 has no effect on DataLoaders"),
        ({"validation": 3}, "images of a DataLoader cannot be held out"),
        ({"unlabelled": "folder:x"}, "unlabelled has no effect on DataLoaders; give one of these images"),
    ],
)
def test_settings_without_effect_on_loaders_are_refused(arrays, tmp_path, data, message):
    config = dataclasses.replace(CONFIG, data=DataConfig(**data))
    with pytest.raises(UsageError, match=message):
        distilled(loaders(arrays), tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_test_loader_in_another_order_each_time_is_found(arrays, tmp_path):
    train, test = loaders(arrays)
    shuffled = DataLoader(test.dataset, batch_size=4, shuffle=True)
    with pytest.raises(UsageError, match="in another order each time; make it with shuffle=False"):
        distilled((train, shuffled), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # before training


def test_unlabelled_images_train_as_labelled_ones_do_where_labels_weigh_nothing(arrays, tmp_path, watcher):
    seen = watcher()
    expected = distilled(arrays, tmp_path / "labelled", method="logits")
    found = distilled((arrays[0], None, *arrays[2:]), tmp_path / "arrays", method="logits", observer=seen)
    torch.testing.assert_close(weights(found.student), weights(expected.student), rtol=0, atol=0)
    pair = Pictures(arrays[0]), Pictures(*arrays[2:])
    distilled(pair, tmp_path / "pictures", method="logits")
    event = seen.events[-1]
    assert "train_accuracy" not in event
    assert 0 <= event["train_agreement"] <= 1


def test_embeddings_are_learnt_from_images_without_labels_in_training_and_test(arrays, tmp_path):
    images, _, others, _ = arrays
    options = {"task": "embedding", "method": "align", "config": CONFIG}
    forms = {"arrays": (images, None, others, None), "datasets": (Pictures(images), Pictures(others))}
    found = [mc.distill(net(0), net(1), data, epochs=1, run_dir=tmp_path / name, **options).metrics
             for name, data in forms.items()]  # fmt: skip
    assert found[0]["test_rank"] == pytest.approx(found[1]["test_rank"], rel=1e-3)
    assert not any("knn" in name for name in found[0])
    with pytest.raises(UsageError, match="only the training labels may be None"):
        distilled((images, None, others, None), tmp_path / "run")


def test_train_agreement_is_the_share_of_images_on_which_student_and_teacher_choose_alike(arrays, tmp_path, watcher):
    seen = watcher()
    data, still = (arrays[0], None, *arrays[2:]), dataclasses.replace(CONFIG, optim=OptimConfig(lr=1e-12))
    mc.distill(net(0), net(1), data, method="logits", epochs=1, run_dir=tmp_path / "r", config=still, observer=seen)
    scaled = torch.from_numpy(arrays[0]).double().div(255)
    pixels = (
        (scaled - scaled.mean((0, 2, 3), keepdim=True)) / scaled.std((0, 2, 3), correction=0, keepdim=True)
    ).float()
    alike = (net(0)(pixels).argmax(1) == net(1)(pixels).argmax(1)).double().mean()
    assert seen.events[0]["train_agreement"] == pytest.approx(float(alike))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("kd", "have no labels, and the label loss has the weight 0.1 beside method 'kd'; leave it out with label_w"),
        ("dkd", "have no labels, and method 'dkd' needs the class of each; choose kd or another"),
        ("kd,crd", "method 'kd,crd' needs the class of each"),
    ],
)
def test_methods_that_need_the_class_are_refused_for_unlabelled_images(arrays, tmp_path, method, message):
    with pytest.raises(UsageError, match=message):
        distilled((arrays[0], None, *arrays[2:]), tmp_path / "run", method=method)
    assert not (tmp_path / "run").exists()


def test_images_with_their_channels_last_are_named_with_the_remedy(arrays, tmp_path):
    turned = [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in arrays]
    with pytest.raises(UsageError, match=r"\(22, 8, 8, 3\), channels last; .*: give images.transpose\(0, 3, 1, 2\)"):
        distilled(tuple(turned), tmp_path / "run")


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
@pytest.mark.parametrize("method", ["dkd", "kd,crd", "nkd"])
def test_methods_that_need_the_class_are_refused_for_mixed_images(arrays, tmp_path, method, mixing):
    config = dataclasses.replace(CONFIG, data=DataConfig(**{mixing: 0.5}))
    with pytest.raises(UsageError, match=f"method '{method}' needs the class of each image, and with mixup or cutmix"):
        distilled(arrays, tmp_path / "run", method=method, config=config)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def photos(tmp_path):
    """photos/ with ten images, some in folders, of different sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(10):
        pixels = rng.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_unlabelled_folder_takes_the_place_of_the_training_images(tiny, photos, tmp_path, watcher):
    seen = watcher()
    method = MethodConfig(name="kd", label_weight=0.0)
    config = tiny.config(method, data={"unlabelled": f"folder:{photos}", "augmentation": "flip"})
    metrics = start_run(config, tmp_path / "run", seen)
    assert len(seen.trainer.loader) == 10
    assert seen.trainer.loader.images.shape == (10, 3, 8, 8)  # as those of the dataset
    assert seen.trainer.student.preprocessing.mean == (0.5, 0.5, 0.5)
    assert seen.answered == [(10, 10)] * 3
    assert "test_accuracy" in metrics
    with pytest.raises(UsageError, match="have no labels, and without a teacher there is nothing to learn"):
        start_run(tiny.config(data={"unlabelled": f"folder:{photos}"}), tmp_path / "labels")
    with pytest.raises(UsageError, match="photos has no labels: leave validation out"):
        start_run(tiny.config(method, data={"unlabelled": f"folder:{photos}", "validation": 3}), tmp_path / "held")
    with pytest.raises(UsageError, match="unknown source of unlabelled: 'photos'"):
        start_run(tiny.config(method, data={"unlabelled": "photos"}), tmp_path / "name")


def test_unlabelled_folder_takes_the_place_of_given_training_images(arrays, photos, tmp_path, watcher):
    seen = watcher()
    config = dataclasses.replace(CONFIG, data=DataConfig(unlabelled=f"folder:{photos}"))
    distilled(arrays, tmp_path / "run", method="logits", config=config, observer=seen)
    assert seen.trainer.loader.images.shape == (10, *arrays[0].shape[1:])
    mean = arrays[0].astype(np.float64).mean((0, 2, 3)) / 255  # of those whose place they take
    np.testing.assert_allclose(seen.trainer.student.preprocessing.mean, mean, rtol=1e-6)


def test_distill_command_takes_unlabelled_images_and_says_what_it_reports(tiny, photos, tmp_path, capsys):
    data = ["--data", "tiny", "--unlabelled", f"folder:{photos}", "--epochs", "1"]
    command = ["distill", "--teacher", str(tiny.teacher), "--student", "tiny", *data, "--out", str(tmp_path / "run")]
    assert main([*command, "--method", "kd"]) == 2
    assert "leave it out with --label-weight 0" in capsys.readouterr().err
    assert main([*command, "--method", "kd", "--label-weight", "0"]) == 0
    shown = capsys.readouterr()
    assert "agrees with the teacher " in shown.err
    assert "test accuracy" in shown.out
