"""The real CIFAR-10, held against the published hashes of the official files. Reads the user's store."""

import hashlib

import numpy as np
import pytest

from model_compression.checks.data import examine_data
from model_compression.data.cifar import load_cifar10
from model_compression.data.dataset import content_digest
from model_compression.data.hold_out import hold_out

pytestmark = pytest.mark.cifar10

# SHA-256 of the members of cifar-10-binary.tar.gz, as published for the official files.
OFFICIAL_SHA256 = [
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
]


@pytest.fixture(scope="module")
def cifar10():
    return load_cifar10()


def official_bytes(dataset, start):
    """10,000 records of the binary file: label, then R, G and B planes, row by row."""
    chosen = slice(start, start + 10_000)
    records = np.empty((10_000, 3073), dtype=np.uint8)
    records[:, 0] = dataset.labels[chosen]
    records[:, 1:] = dataset.images[chosen].reshape(10_000, 3072)
    return records.tobytes()


def test_real_content_is_that_of_the_official_files(cifar10):
    train, test = cifar10
    blocks = [official_bytes(train, start) for start in range(0, 50_000, 10_000)] + [official_bytes(test, 0)]
    assert [hashlib.sha256(block).hexdigest() for block in blocks] == OFFICIAL_SHA256


def test_real_classes_are_balanced_and_nothing_is_odd(cifar10):
    train, test = cifar10
    assert train.class_counts().tolist() == [5000] * 10
    assert test.class_counts().tolist() == [1000] * 10
    assert {finding.level for finding in examine_data(train, test)} == {"ok"}


def test_real_mean_and_std_are_those_of_the_training_images(cifar10):
    train, _ = cifar10
    histograms = [np.bincount(train.images[:, channel].ravel(), minlength=256) for channel in range(3)]
    values = np.arange(256) / 255
    means = [histogram @ values / histogram.sum() for histogram in histograms]
    pairs = list(zip(histograms, means, strict=True))
    stds = [np.sqrt(histogram @ values**2 / histogram.sum() - mean**2) for histogram, mean in pairs]
    assert np.allclose(train.mean, means, atol=1e-5)
    assert np.allclose(train.std, stds, atol=1e-5)


def test_real_digests_are_those_that_caches_were_made_with(cifar10):
    assert [dataset.digest[:8] for dataset in cifar10] == ["aac31e3f", "8b4ee122"]


def test_real_validation_split_is_the_same_everywhere(cifar10):
    train, validation = hold_out(cifar10[0], 5000, seed=0)
    assert validation.class_counts().tolist() == [500] * 10
    assert (len(train), content_digest(validation.images, validation.labels)[:8]) == (45_000, "98c9cd31")


def test_real_data_reads_back_from_a_folder_of_people_s_own(cifar10, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    train, test = cifar10
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(official_bytes(train, number * 10_000))
    (folder / "test_batch.bin").write_bytes(official_bytes(test, 0))
    own_train, own_test = load_cifar10(tmp_path, report=pytest.fail, allow_download=False)
    assert (own_train.digest, own_test.digest) == (train.digest, test.digest)
