"""Tar shards: what tarfile and Pillow write arrives to the pixel, splits follow names, and whatever is odd is named."""

import gzip
import io
import json
import os
import re
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.data import tar_shards
from model_compression.data.sources import load_dataset
from model_compression.data.tar import load_tar
from model_compression.data.tar_archive import read_archive
from model_compression.data.tar_shards import list_shards


def pixels(seed, size=(6, 9)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(seed, size=(6, 9)):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, members, **options):
    """A tar file of members {name: bytes or a TarInfo without content}, an hour old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members if isinstance(members, list) else members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if content is info else len(content)
            archive.addfile(info, None if content is info else io.BytesIO(content))
    os.utime(path, ns=(0, time.time_ns() - 3_600_000_000_000))
    return path


def samples(first, count, label=lambda seed: b"%d" % (seed % 3), **options):
    members = {}
    for seed in range(first, first + count):
        members[f"{seed:05}.png"] = png(seed, **options)
        members[f"{seed:05}.cls"] = label(seed)
    return members


def expected(seeds):
    return np.stack([pixels(seed) for seed in seeds]).transpose(0, 3, 1, 2)


def test_folder_of_train_and_test_is_read_to_the_pixel_in_the_order_of_the_shards(tmp_path):
    for shard in (1, 0):
        write(tmp_path / "train" / f"{shard:03}.tar", samples(10 * shard, 5))
    write(tmp_path / "val" / "000.tar", samples(50, 4))
    train, test = load_tar(str(tmp_path))
    seeds = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    np.testing.assert_array_equal(train.images[:], expected(seeds))
    np.testing.assert_array_equal(test.images[:], expected(range(50, 54)))
    np.testing.assert_array_equal(train.images[np.array([7, 2])], expected([12, 2]))
    assert train.labels.tolist() == [seed % 3 for seed in seeds]
    assert train.class_names == test.class_names == ("0", "1", "2")
    scaled = expected(seeds).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert train.mean == test.mean == pytest.approx(scaled.mean(axis=1), abs=1e-5)
    assert (train.notes, test.notes) == ((), ())


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["train-000.tar", "train-001.tar", "test-000.tar"], ""),
        (["imagenet1k-train-000.tar", "imagenet1k-train-001.tar", "imagenet1k-validation-00.tar"], ""),
        (["000.tar", "001.tar", "val-000.tar"], ""),
        (["a/train/0.tar", "b/train-x.tar", "b/test/0.tar"], "/{a/train/0,b/train-x,b/test/0}.tar"),
        (["train-09.tar", "train-10.tar", "test-09.tar", "test-10.tar"], "/{train,test}-{09..10}.tar"),
    ],
    ids=str,
)
def test_shards_are_split_by_the_words_in_their_names(tmp_path, names, pattern):
    for number, name in enumerate(names):
        write(tmp_path / name, samples(10 * number, 3))
    train, test = load_tar(f"{tmp_path}{pattern}")
    tests = [number for number, name in enumerate(names) if re.search("test|val", name)]
    for dataset, shards in ((train, [n for n in range(len(names)) if n not in tests]), (test, tests)):
        seeds = [10 * shard + place for shard in shards for place in range(3)]
        np.testing.assert_array_equal(dataset.images[:], expected(seeds))


def test_pattern_without_a_test_holds_out_a_fifth_of_each_class(tmp_path):
    for shard in range(4):
        write(tmp_path / f"{shard:03}.tar", samples(30 * shard, 15))
    said = []
    train, test = load_tar(f"{tmp_path}/{{000..001}}.tar", report=said.append)
    assert (len(train), test.class_counts().tolist()) == (24, [2, 2, 2])
    assert said == [f"{tmp_path}/{{000..001}}.tar has no shards for the test: 6 of 30 images are held out for the test"]
    assert len(load_tar(f"{tmp_path}/*[12].tar")[0]) == 24
    assert load_dataset(f"tar:{tmp_path}", image_size=4)[0].image_shape == (3, 4, 4)


def test_train_test_and_val_say_which_are_used(tmp_path):
    for number, name in enumerate(("train-0", "val-0", "test-0", "0")):
        write(tmp_path / f"{name}.tar", samples(10 * number, 3))
    said = []
    _, test = load_tar(str(tmp_path), report=said.append)
    np.testing.assert_array_equal(test.images[:], expected(range(20, 23)))
    assert said == [f"{tmp_path}: shards of train and test are used; not used: those without such a word, val"]


LABELS = {
    "texts": (lambda seed: ["bee", "ape"][seed % 2].encode(), ["ape", "bee"]),
    "numbers with a line break": (lambda seed: b" %d\n" % (seed % 2), ["0", "1"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_numbers_or_names(tmp_path, kind):
    label, names = LABELS[kind]
    write(tmp_path / "train-0.tar", samples(0, 5, label))
    write(tmp_path / "test-0.tar", samples(7, 2, label))
    train, test = load_tar(str(tmp_path))
    assert list(train.class_names) == names
    assert [names[one] for one in train.labels] == [label(seed).decode().strip() for seed in range(5)]
    assert [names[one] for one in test.labels] == [label(seed).decode().strip() for seed in (7, 8)]


def test_labels_in_json_and_beside_it(tmp_path):
    members = {
        "a/x.y.png": png(0), "a/x.json": json.dumps({"label": 1, "caption": "…"}).encode(),
        "b/x.png": png(1), "b/x.cls": b"0", "b/x.json": b'{"label": 1}',  # .cls has the word
        "c.JSON": b'{"class": 1}', "c.JPG": png(2),  # Pillow looks at the content
        "./d.png": png(3), "./d.json": b'{"cls": 0}',
    }  # fmt: skip
    write(tmp_path / "train.tar", members)
    write(tmp_path / "test.tar", samples(0, 2))
    train, _ = load_tar(str(tmp_path))
    np.testing.assert_array_equal(train.images[:], expected(range(4)))
    assert train.labels.tolist() == [1, 0, 1, 0]


def link(kind, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def test_whatever_is_no_sample_is_left_out_counted_and_named(tmp_path):
    members = list(samples(0, 3).items())
    members += [("odd/1.png", png(7)), ("odd/2.cls", b"1"), ("odd/3.png", png(8)), ("odd/3.json", b'{"caption": "x"}')]
    members += [("00000.webp", png(9)), ("00000.cls", b"2"), ("00001.txt", b"text"), ("README", b"x"), ("x.npy", b"x")]
    members += [("/etc/4.png", png(10)), ("../5.png", png(11)), link(tarfile.SYMTYPE, "6.png", "/etc/passwd")]
    members += [link(tarfile.LNKTYPE, "7.cls", "00000.cls"), link(tarfile.CHRTYPE, "8.png", ""), ("9.cls", b"\xff")]
    members += [("._00000.png", b"x"), ("__MACOSX/1.png", b"x"), link(tarfile.DIRTYPE, "odd", "")]
    write(tmp_path / "train.tar", members)
    write(tmp_path / "test.tar", samples(0, 3))
    train, test = load_tar(str(tmp_path))
    np.testing.assert_array_equal(train.images[:], expected(range(3)))
    assert test.notes == ()
    (note,) = train.notes
    head, _, rest = note.partition("left out: ")
    assert head == f"{tmp_path}: "
    assert rest.split("; ") == [
        "1 .cls without a label (train.tar/9.cls)",
        "1 .json without a label (train.tar/odd/3.json)",
        "1 .npy (train.tar/x.npy)",
        "1 .txt (train.tar/00001.txt)",
        "1 label without an image (train.tar/odd/2)",
        "2 link (train.tar/6.png, train.tar/7.cls)",
        "1 no regular file (train.tar/8.png)",
        "1 second image of a key (train.tar/00000.webp)",
        "1 second label of a key (train.tar/00000.cls)",
        "2 with a name outside of the archive (train.tar//etc/4.png, train.tar/../5.png)",
        "1 without an ending (train.tar/README)",
        "2 image without a label (train.tar/odd/1.png, train.tar/odd/3.png)",
    ]


def test_training_shards_without_labels_are_an_unlabelled_set(tmp_path):
    write(tmp_path / "train.tar", {f"{seed}.png": png(seed) for seed in range(5)})
    write(tmp_path / "test.tar", samples(9, 3))
    said = []
    train, test = load_tar(str(tmp_path), report=said.append)
    assert (train.labelled, test.labelled, len(train), train.notes) == (False, True, 5, ())
    assert said == [f"the training shards of {tmp_path} hold no labels: they are trained on without"]
    with pytest.raises(DataError, match=r"train\.tar: no image has a label; expected KEY\.cls or KEY\.json"):
        load_tar(str(tmp_path / "train.tar"))


def damaged(whole):
    """What may become of an archive, by name."""
    second = 512 + 512 * -(-len(png(0)) // 512)  # the header of the first label
    yield "cut in a header", whole[: second + 100]
    yield "cut in a member", whole[: second + 512 + 1]
    yield "cut between members", whole[:second]
    yield "a damaged header", whole[: second + 150] + b"\xff" + whole[second + 151 :]
    yield "rubbish", b"rubbish" * 1000
    yield "empty", b""
    yield "a negative size", whole[: second + 124] + b"\xff" * 12 + whole[second + 136 :]


@pytest.mark.parametrize("kind", [name for name, _ in damaged(b"")])
def test_damaged_shard_is_refused_by_name_in_one_line(tmp_path, kind):
    path = write(tmp_path / "train.tar", samples(0, 4))
    path.write_bytes(dict(damaged(path.read_bytes()))[kind])
    with pytest.raises(
        DataError, match=r"train\.tar is damaged or cut off after \d+ members: .*; copy it again"
    ) as error:
        load_tar(str(path))
    assert "\n" not in str(error.value)


def test_what_is_no_shard_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "a.tar", samples(0, 4))
    (tmp_path / "b.tar").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"b\.tar is compressed, .*; run gunzip first"):
        load_tar(str(tmp_path / "b.tar"))
    with pytest.raises(NotThereError, match=r"c-01\.tar is not there; expected a folder of \.tar files, or a pattern"):
        load_tar(str(tmp_path / "c-{01..02}.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no \.tar files; expected"):
        load_tar(str(tmp_path / "empty"))
    (tmp_path / "folder" / "0.tar").mkdir(parents=True)
    with pytest.raises(DataError, match=r"0\.tar is no regular file"):
        load_tar(str(tmp_path / "folder"))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "0.tar")
    with pytest.raises(DataError, match=r"0\.tar is no regular file"):
        load_tar(str(tmp_path / "pipe"))
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "0.tar").write_bytes(2 * path.read_bytes())
    with pytest.raises(DataError, match=r"0\.tar is damaged .* more follows behind its end"):
        load_tar(str(tmp_path / "joined"))
    with pytest.raises(DataError, match=r"\{9\.\.1\} in .* must be a range"):
        load_tar(str(tmp_path / "c-{9..1}.tar"))
    with pytest.raises(UsageError, match="tar: names no path; expected tar:PATH or tar:PATTERN"):
        load_dataset("tar:")
    write(tmp_path / "d" / "test.tar", samples(0, 4))
    with pytest.raises(DataError, match="has shards for test but none for the training"):
        load_tar(str(tmp_path / "d"))
    write(tmp_path / "e.tar", {"x.txt": b"x"})
    with pytest.raises(DataError, match=r"e\.tar: no images in it; .* found 1 \.txt \(e\.tar/x\.txt\)"):
        load_tar(str(tmp_path / "e.tar"))


def test_image_of_another_size_or_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "train.tar", samples(0, 4) | {"9.png": png(9, (7, 9)), "9.cls": b"0"})
    write(tmp_path / "test.tar", samples(0, 4) | {"9.png": png(9)[:70], "9.cls": b"0"})
    with pytest.raises(DataError, match=r"9 × 6 pixels, train\.tar/9\.png 9 × 7; give a side .*image_size=224"):
        load_tar(str(tmp_path))
    _, test = load_tar(str(tmp_path), 4)
    with pytest.raises(
        DataError, match=r"^test\.tar/9\.png cannot be read as an image: .*; repair it, or take it out$"
    ):
        test.images[:]


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """Two shards of which an index is kept although they are small, and the shards that are read."""
    monkeypatch.setattr(tar_shards, "_WORTH_KEEPING", 1)
    read, original = [], tar_shards.read_archive
    monkeypatch.setattr(tar_shards, "read_archive", lambda path: read.append(path.name) or original(path))
    paths = [write(tmp_path / f"{n}.tar", samples(10 * n, 5) | {f"{n}.txt": b"x"}) for n in range(2)]
    return paths, read


def all_of(shards):
    """What is known of the images, and their content."""
    each = [(shards.name(n), shards.identity(n), shards.content(n)) for n in range(len(shards))]
    return each, shards.values, shards.codes.tolist(), shards.shards.tolist(), shards.left_out, shards.states


def without_index(paths):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_shards, "read_index", lambda kind, key: None)
        patch.setattr(tar_shards, "write_index", lambda *given: None)
        patch.setattr(tar_shards, "read_archive", read_archive)
        return all_of(list_shards(paths, print))


def test_members_are_found_once(indexed):
    paths, read = indexed
    found = [all_of(list_shards(paths, print)) for _ in range(3)]
    assert read == ["0.tar", "1.tar"]
    assert found[0] == found[1] == found[2] == without_index(paths)
    assert [content for _, _, content in found[0][0]] == [png(seed) for seed in (*range(5), *range(10, 15))]
    assert found[0][4] == "2 .txt (0.tar/0.txt, 1.tar/1.txt)"


def test_only_shards_that_have_changed_are_read_again(indexed, tmp_path):
    paths, read = indexed
    list_shards(paths, print)
    write(paths[0], {f"{n}.txt": b"x" for n in range(5)} | samples(20, 4, lambda seed: b"name %d" % (seed % 5)))
    os.utime(paths[0], ns=(0, time.time_ns() - 1_800_000_000_000))
    assert all_of(list_shards(paths, print)) == without_index(paths)
    assert read == ["0.tar", "1.tar", "0.tar"]
    assert all_of(list_shards(paths, print)) == without_index(paths)
    paths.insert(1, write(tmp_path / "0a.tar", samples(40, 3)))
    for _ in range(2):
        assert all_of(list_shards(paths, print)) == without_index(paths)
    assert read[3:] == ["0a.tar"]
    for some in (paths[:2], paths[::2], paths):
        assert all_of(list_shards(some, print)) == without_index(some)
    assert read[4:] == []
    write(paths[2], samples(30, 5))
    os.utime(paths[2])  # just now: who knows what follows
    for _ in range(2):
        assert all_of(list_shards(paths, print)) == without_index(paths)
    assert read[4:] == ["1.tar"] * 2


@pytest.mark.parametrize("how", ["cut", "grown", "written over", "replaced"])
def test_shard_that_changes_after_it_was_read_is_one_line(indexed, tmp_path, how):
    paths, _ = indexed
    shards = list_shards(paths, print)
    size = paths[1].stat().st_size
    if how == "cut":
        os.truncate(paths[1], 700)
    elif how == "grown":
        os.truncate(paths[1], 2 * size)
    elif how == "written over":
        with open(paths[1], "r+b") as file:
            file.write(b"x")
    else:
        write(tmp_path / "new", samples(10, 30)).replace(paths[1])
    found = "it has [0-9,]+ bytes instead of [0-9,]+" if how != "written over" else "it was written again, at 2"
    with pytest.raises(
        DataError, match=rf"1\.tar has changed since .* 00010\.png: {found}.*; put the former file back"
    ):
        shards.content(5)
    assert shards.content(0) == png(0)


def test_shard_that_is_gone_is_one_line(indexed):
    paths, _ = indexed
    shards = list_shards(paths, print)
    paths[1].unlink()
    with pytest.raises(DataError, match=r"1\.tar cannot be read: No such file"):
        shards.content(5)


WRONG = {
    "negative": (b"-1", b"%d", r"labels run from -1 to 1 \(3\.tar/00031\.png\)"),
    "an identifier": (b"123456789", b"%d", r"labels run from 0 to 123456789 \(3\.tar/00031\.png\)"),
    "a text": (b"ape", b"%d", r"a label is 'ape' beside numbers \(3\.tar/00031\.png\)"),
    "a number": (b"7", b"name %d", r"a label is 7 beside texts \(3\.tar/00031\.png\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_label_that_is_wrong_is_named_with_its_shard_and_key(tmp_path, kind):
    wrong, right, message = WRONG[kind]
    for shard in range(2, 5):
        label = lambda seed: wrong if seed == 31 else right % (seed % 2)  # noqa: E731
        write(tmp_path / f"{shard}.tar", samples(10 * shard, 4, label) | {f"{shard}5.png": png(0)})
    with pytest.raises(DataError, match=message):
        load_tar(str(tmp_path))


def test_digest_stays_when_the_shards_move_and_changes_with_what_is_in_them(tmp_path):
    path = write(tmp_path / "0.tar", samples(0, 10))
    digest = load_tar(str(path))[0].digest
    moved = tmp_path / "elsewhere" / "0.tar"
    moved.parent.mkdir()
    path.rename(moved)
    assert load_tar(str(moved))[0].digest == digest
    others = {load_tar(str(moved), 4)[0].digest}
    for members in (samples(0, 9), samples(0, 10, lambda seed: b"%d" % (seed % 2)), samples(5, 10)):
        others.add(load_tar(str(write(moved, members)))[0].digest)
    assert len(others | {digest}) == 5


def test_names_of_every_format_of_tar_are_read(tmp_path):
    for number, kind in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        folder = "/".join(["long" * 12] * 3) if kind == tarfile.USTAR_FORMAT else "é" * 300
        members = {f"{folder}/{name}": content for name, content in samples(10 * number, 4).items()}
        train, test = load_tar(str(write(tmp_path / f"{number}.tar", members, format=kind)))
        assert len(train) + len(test) == 4


def test_shards_whose_folder_cannot_be_written_are_no_matter(indexed, tmp_path):
    paths, _ = indexed
    before = sorted(tmp_path.rglob("*"))
    list_shards(paths, print)
    assert sorted(tmp_path.rglob("*")) == before  # the index is in the user's cache
    assert [path.name[:7] for path in (Path(os.environ["MODEL_COMPRESSION_CACHE"]) / "indexes").iterdir()] == [
        "shards-"
    ]
