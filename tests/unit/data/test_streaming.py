"""The streaming loader gives the resident loader's batches, to the bit, for any number of workers."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError
from model_compression.data.dataset import Dataset
from model_compression.data.image_views import ImageViews
from model_compression.data.loader import ResidentLoader
from model_compression.data.on_demand import ArraySource, OnDemandImages
from model_compression.data.placement import place_images
from model_compression.data.streaming import StreamingLoader, loader_for

N = 23
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # four on a machine of two
WORKERS = pytest.mark.parametrize("workers", [0, 1, 4])


@pytest.fixture
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 8, 6), dtype=np.uint8)
    labels = np.arange(N, dtype=np.int64) % 4
    return Dataset(name="d", samples=images, labels=labels, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3)


def both(dataset, workers, **options):
    """The resident loader and the streaming one, chosen by `loader_for`."""
    config = DataConfig(**options)
    loaders = [loader_for(d, config, CPU) for d in (dataset, place_images(dataset, dataset, "off", workers)[0])]
    assert [type(loader) for loader in loaders] == [ResidentLoader, StreamingLoader]
    return loaders


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.view == other.view
        for name in ("inputs", "targets", "ids"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.mixed is None) == (other.mixed is None)
        if one.mixed is not None:
            assert torch.equal(one.mixed.targets, other.mixed.targets)
            assert torch.equal(one.mixed.share, other.mixed.share)


@WORKERS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augmentation": "flip_shift", "views": 2, "view_seed": 3},
        {"augmentation": "flip", "cutout": 4},
        {"mixup": 0.4, "cutmix": 1.0},
    ],
    ids=str,
)
def test_streamed_batches_are_the_resident_ones(dataset, workers, options):
    resident, streaming = both(dataset, workers, **options)
    for epoch in (0, 1, 2):
        shown = {"epoch": epoch, "seed": 5, "batch_size": 5}
        assert_same(streaming.epoch(**shown), resident.epoch(**shown))
        assert_same(streaming.epoch(**shown, first=3), resident.epoch(**shown, first=3))
    assert_same(streaming.in_order(view=1, batch_size=10), resident.in_order(view=1, batch_size=10))
    indices = torch.tensor([4, 4, 20])
    assert_same([streaming.batch(indices, 2)], [resident.batch(indices, 2)])
    assert (len(streaming), streaming.steps(5)) == (N, 5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": "photo", "grey": 0.5, "erasing": 0.5, "views": 2},
        {"augmentation": "randaugment", "cutout": 3, "mixup": 0.4},
        {"augmentation": "trivialaugment", "view_seed": 5},
    ],
    ids=str,
)
def test_views_that_crop_are_the_same_for_any_workers_batches_and_interruptions(dataset, workers, options):
    """Held or streamed: always the view of the sample alone, made on the CPU of whoever decodes."""
    config = DataConfig(**options, workers=workers)
    held, streamed = (loader_for(d, config, CPU) for d in (dataset, place_images(dataset, dataset, "off", workers)[0]))
    alone = loader_for(dataset, DataConfig(**options, workers=0), CPU)
    for loader in (held, streamed):
        assert type(loader) is StreamingLoader
        for epoch in (0, 1):
            whole = list(loader.epoch(epoch=epoch, seed=5, batch_size=10))
            assert_same(loader.epoch(epoch=epoch, seed=5, batch_size=10, first=1), whole[1:])
            for batch in whole:
                for row in range(len(batch.ids)):
                    single = alone.batch(batch.ids[row : row + 1], batch.view)
                    assert torch.equal(single.inputs[0], batch.inputs[row])
    first, second = (next(alone.in_order(view=view, batch_size=N)).inputs for view in (0, 1))
    assert not torch.equal(first, second)


def test_a_view_that_crops_is_what_image_views_gives_then_erased(dataset):
    """By another path: each image alone through `ImageViews`, then a box of the mean colour."""
    config = DataConfig(augmentation="photo", erasing=1.0, workers=0)
    views = ImageViews.of(config, dataset)
    shown = next(loader_for(dataset, config, CPU).in_order(view=3, batch_size=N)).inputs
    draws = views.draw(torch.arange(N), 3)
    for row in range(N):
        expected = views.apply(torch.from_numpy(dataset.images[row]), draws.of(row, 8, 6))
        erased = (shown[row] != expected).any(dim=0)
        assert (shown[row][:, erased] == 128).all()  # the mean, 0.5 of 255
        rows, columns = erased.any(dim=1).nonzero(), erased.any(dim=0).nonzero()
        assert 1 <= len(rows) * len(columns) <= 0.45 * 48  # of 2 to 33 % of 48 pixels, rounded


@WORKERS
def test_streaming_leaves_the_global_generator_alone(dataset, workers):
    _, streaming = both(dataset, workers)
    before = torch.get_rng_state()
    list(streaming.epoch(epoch=0, seed=0, batch_size=5))
    assert torch.equal(torch.get_rng_state(), before)


@WORKERS
def test_an_epoch_that_is_left_and_two_at_once_are_no_matter(dataset, workers):
    resident, streaming = both(dataset, workers, augmentation="flip")
    left = streaming.epoch(epoch=0, seed=1, batch_size=5)
    first = next(left)
    inner = list(streaming.in_order(view=0, batch_size=7))  # as a teacher's answers are filled in the first step
    assert_same([first, *left], resident.epoch(epoch=0, seed=1, batch_size=5))
    assert_same(inner, resident.in_order(view=0, batch_size=7))
    next(streaming.epoch(epoch=1, seed=1, batch_size=5))
    assert_same(streaming.epoch(epoch=1, seed=1, batch_size=5), resident.epoch(epoch=1, seed=1, batch_size=5))


class Broken(ArraySource):
    """Cannot decode image 9."""

    def decode(self, number):
        if number == 9:
            raise DataError("photos/9.png cannot be read as an image: it is cut; repair or delete it")
        return super().decode(number)


def streaming_from(source, dataset, workers):
    images = OnDemandImages(source=source(dataset.images), rows=np.arange(N), workers=workers)
    settings = {name: getattr(dataset, name) for name in ("labels", "class_names", "mean", "std", "digest")}
    return StreamingLoader(Dataset(name="d", samples=images, **settings), DataConfig(), CPU)


@WORKERS
def test_image_that_cannot_be_decoded_is_one_line_from_any_process(dataset, workers):
    loader = streaming_from(Broken, dataset, workers)
    with pytest.raises(DataError, match=r"^photos/9\.png cannot be read as an image: it is cut; repair or delete it$"):
        list(loader.in_order(view=0, batch_size=4))


DYING = """
import os, signal, time
import numpy as np
from model_compression.data.on_demand import ArraySource, OnDemandImages
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import StreamingLoader
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError
import torch

class Dying(ArraySource):
    def decode(self, number):
        if number == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(number)

images = np.zeros((23, 3, 8, 6), np.uint8)
lazy = OnDemandImages(source=Dying(images), rows=np.arange(23), workers=1)
labels = np.arange(23) % 4
arguments = {"class_names": tuple("abcd"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "digest": "0" * 64}
data = Dataset(name="d", samples=lazy, labels=labels, **arguments)
loader = StreamingLoader(data, DataConfig(), torch.device("cpu"))
seen = 0
try:
    for batch in loader.in_order(view=0, batch_size=4):
        time.sleep(1)  # as a step of training: the process that decodes dies meanwhile, and the step is finished
        seen += len(batch.targets)
except DataError as error:
    print(seen, error)
"""


def test_process_that_dies_as_one_that_takes_too_much_memory_is_one_line_with_the_remedy():
    done = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[48] a process that decodes images ended: .*; .* use fewer workers, or 0\n", done.stdout)
    assert done.stderr == ""
