"""Downloads over HTTPS: bounded in size, proven by SHA-256, with a progress bar on a terminal."""

import hashlib
import http.client
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from model_compression.core.console import console
from model_compression.core.errors import DataError

TIMEOUT_S = 5.0  # for connecting and for each wait for bytes
CHUNK_BYTES = 1 << 18


def download(url: str, *, sha256: str, max_bytes: int) -> bytes:
    """What ``url`` sends.

    Only https is spoken, redirects included; plain http is accepted from this machine itself (127.0.0.1, ::1), where
    nobody can listen. Raises DataError when the server is not reached or fails, sends more than ``max_bytes``, or sends
    something whose SHA-256 is not ``sha256``.
    """
    _require_safe(url)
    request = urllib.request.Request(url, headers={"User-Agent": "model-compression", "Accept-Encoding": "identity"})
    host = urllib.parse.urlsplit(url).netloc
    payload = bytearray()
    try:
        with urllib.request.build_opener(_SafeRedirects()).open(request, timeout=TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length") or 0)
            with show_progress(host) as progress:
                while len(payload) <= max_bytes and (chunk := response.read(CHUNK_BYTES)):
                    payload += chunk
                    progress(len(payload), total)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url} answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = str(getattr(reason, "strerror", None) or reason) or type(error).__name__
        raise DataError(f"{host} fails after {len(payload)} bytes: {reason}") from error
    if len(payload) > max_bytes:
        raise DataError(f"{url} sends more than the {max_bytes} bytes that were expected")
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise DataError(
            f"{url} sent a file with SHA-256 {found}, expected {sha256}; it is cut, or not the published one"
        )
    return bytes(payload)


@contextmanager
def show_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar with ``label`` while the block runs, on a terminal only.

    Yields the function that moves it: it takes the bytes done so far and all bytes, 0 where that is not known.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_safe(newurl, since=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str, since: str = "") -> None:
    """Raises DataError unless ``url``, to which ``since`` redirects, may be fetched."""
    parts = urllib.parse.urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1") and not since.startswith("https:")
    if parts.scheme != "https" and not is_local:
        raise DataError(f"{url} is refused: downloads are made over https only")
