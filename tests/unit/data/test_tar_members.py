"""Reading members of hostile, truncated and odd archives."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_compression.core.errors import FileFormatError
from model_compression.data.tar_members import MAX_MEMBERS, read_members

LIMITS = {"data/a": 100, "data/b": 100}


def header(name, kind=tarfile.REGTYPE, size=0, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


def test_read_members_yields_the_named_ones_only(tmp_path, tar_writer):
    path = tar_writer(tmp_path / "x.tar.gz", {"data/b": b"bb", "data/c": b"cc", "a": b"no", "./data/a": b"aa"})
    assert list(read_members(path, LIMITS)) == [("data/b", b"bb"), ("data/a", b"aa")]


def test_read_members_reads_a_plain_tar(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:") as archive:
        member = header("data/a", size=2)
        archive.addfile(member, io.BytesIO(b"aa"))
    assert list(read_members(path, LIMITS)) == [("data/a", b"aa")]


def test_read_members_passes_over_hostile_names_and_writes_nothing(tmp_path, tar_writer):
    folder = tmp_path / "inside"
    folder.mkdir()
    hostile = {"../escaped": b"x", str(tmp_path / "absolute"): b"x", "data/../../escaped": b"x", "data/a": b"aa"}
    extra = [
        header("link", tarfile.SYMTYPE, link="/etc"),
        header("hard", tarfile.LNKTYPE, link="../escaped"),
        header("device", tarfile.CHRTYPE),
        header("pipe", tarfile.FIFOTYPE),
    ]
    path = tar_writer(folder / "x.tar.gz", hostile, extra)
    assert list(read_members(path, LIMITS)) == [("data/a", b"aa")]
    assert [str(found.relative_to(tmp_path)) for found in sorted(tmp_path.rglob("*"))] == ["inside", "inside/x.tar.gz"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_read_members_refuses_a_named_member_that_is_no_file(tmp_path, tar_writer, kind):
    path = tar_writer(tmp_path / "x.tar.gz", {}, [header("data/a", kind, link="/etc/passwd")])
    with pytest.raises(FileFormatError, match=r"data/a is no regular file"):
        list(read_members(path, LIMITS))


def test_read_members_refuses_a_member_above_its_limit(tmp_path, tar_writer):
    path = tar_writer(tmp_path / "x.tar.gz", {"data/a": bytes(101)})
    with pytest.raises(FileFormatError, match="claims 101 bytes; expected at most 100"):
        list(read_members(path, LIMITS))


def test_read_members_refuses_a_claim_of_a_terabyte(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(header("data/a", size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(FileFormatError, match="claims 1099511627776 bytes"):
        list(read_members(path, LIMITS))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_read_members_does_not_believe_a_terabyte_that_it_would_skip_over(tmp_path, kind):
    path = tmp_path / "x.tar"
    path.write_bytes(header("other", kind, size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(FileFormatError, match="cannot be read"):
        list(read_members(path, LIMITS))


def test_read_members_refuses_an_archive_of_more_bytes_than_its_limits_allow(tmp_path, tar_writer):
    path = tar_writer(tmp_path / "x.tar.gz", {"data/a": b"a", "other": bytes(2 << 20)})
    with pytest.raises(FileFormatError, match="holds more bytes than an official archive"):
        list(read_members(path, LIMITS))


def test_read_members_refuses_too_many_members(tmp_path, tar_writer):
    path = tar_writer(tmp_path / "x.tar.gz", {f"other{number}": b"" for number in range(MAX_MEMBERS + 1)})
    with pytest.raises(FileFormatError, match=f"over {MAX_MEMBERS} members"):
        list(read_members(path, LIMITS))


BOMB_READER = """
import resource, sys
from pathlib import Path
from model_compression.data.tar_members import read_members
from model_compression.core.errors import FileFormatError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(read_members(Path(sys.argv[1]), {"data/a": 100}))
except FileFormatError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.REGTYPE])
def test_read_members_holds_little_of_a_decompression_bomb(tmp_path, kind):
    """A name (or an extended header, or a member that is passed over) of 300 million zeros in 300 kB."""
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header("name", kind, size=300_000_000).tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            file.write(bytes(1_000_000))
    done = subprocess.run([sys.executable, "-c", BOMB_READER, path], capture_output=True, text=True, check=True)
    grown_kilobytes = int(done.stdout)
    assert grown_kilobytes < 30_000


def test_read_members_refuses_every_truncation_of_a_compressed_archive(tmp_path, tar_writer):
    whole = tar_writer(tmp_path / "x.tar.gz", {"data/a": os.urandom(90), "data/b": os.urandom(90)}).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in range(len(whole) - 8):  # the last eight bytes are the checksum, past the end of the tar
        cut.write_bytes(whole[:length])
        found, refusal = read_or_refuse(cut)
        if refusal is None:
            assert len(found) == 2, length  # only the padding behind both members was cut
        else:
            assert str(cut) in refusal


@settings(max_examples=150, deadline=None)
@given(junk=st.binary(max_size=2000), compressed=st.booleans())
def test_read_members_survives_any_bytes(junk, compressed):
    survive(gzip.compress(junk) if compressed else junk)


@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 2 * 512 - 1), value=st.integers(0, 255), length=st.integers(0, 20), compressed=st.booleans()
)
def test_read_members_survives_any_change_of_a_header(position, value, length, compressed):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in ("data/a", "data/b"):
            archive.addfile(header(name, size=50), io.BytesIO(bytes(50)))
    changed = bytearray(buffer.getvalue())
    changed[position : position + length] = bytes([value]) * length
    fix_checksum(changed)
    survive(gzip.compress(bytes(changed)) if compressed else bytes(changed))


def fix_checksum(archive):
    """Makes the first header's checksum right, so that what else is wrong in it is met."""
    total = sum(archive[:148]) + 8 * 32 + sum(archive[156:512])
    archive[148:156] = f"{total:06o}\0 ".encode()


def read_or_refuse(path):
    """(members, message of the error): one of the two is None."""
    try:
        return list(read_members(path, LIMITS)), None
    except FileFormatError as error:
        return None, str(error)


def survive(payload):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tar"
        path.write_bytes(payload)
        found, refusal = read_or_refuse(path)
        assert str(path) in refusal if found is None else all(len(content) <= LIMITS[name] for name, content in found)
