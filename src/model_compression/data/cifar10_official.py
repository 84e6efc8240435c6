"""CIFAR-10 from its authors' site: the binary archive."""

from pathlib import Path

from model_compression.data import cifar10_content as content
from model_compression.data.cifar10_own import read_archive
from model_compression.data.download import download

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MAX_BYTES = 200_000_000  # it has about 170 million


def fetch_official(workspace: Path) -> content.Arrays:
    """Downloads the archive into ``workspace``, or the rest of it, and reads it.

    Raises DataError when the site is not reached or sends something else.
    """
    archive = workspace / "cifar-10-binary.tar.gz.part"
    download(URL, archive, sha256=ARCHIVE_SHA256, max_bytes=MAX_BYTES)
    return read_archive(archive)
