"""Downloads one file over HTTPS: resumed where it was cut, bounded in size, proven by its SHA-256."""

import hashlib
import http.client
import ipaddress
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from model_compression.core.errors import DataError
from model_compression.core.files import writing_failed
from model_compression.data.progress import shown

TIMEOUT_S = 5.0  # for connecting and for each wait for bytes; a stall is cured by connecting anew with a range
PAUSE_S = 1.0
PATIENCE = 3  # connections in a row that bring nothing, once some bytes have come
CHUNK_BYTES = 1 << 18


def download(url: str, target: Path, *, sha256: str, max_bytes: int) -> None:
    """Fetches ``url`` into ``target``; bytes that ``target`` already holds from a cut download are not fetched again.

    Only https is spoken, redirects included; plain http is accepted from this machine itself (127.0.0.1, ::1), where
    nobody can listen. Gives up at once when the server is not reached. What was fetched before a cut is kept for the
    next call.

    Raises DataError when the server fails, sends more than ``max_bytes``, or sends something whose SHA-256 is not
    ``sha256``; ModelCompressionError when the disk is full.
    """
    _require_safe(url)
    resumed = _size(target) > 0
    if not (resumed and _sha256(target) == sha256):
        _fetch_all(url, target, max_bytes)
    if resumed and _sha256(target) != sha256:  # what was there may have been of another version of the file
        target.unlink()
        _fetch_all(url, target, max_bytes)
    found = _sha256(target)
    if found != sha256:
        target.unlink()
        raise DataError(f"{url} sent a file with SHA-256 {found}, expected {sha256}; it is not the published file")


def require_reachable(url: str) -> None:
    """Asks ``url`` for its headers once; any answer will do. Raises DataError when there is none in time.

    For clients that would try for half a minute to reach a server that is not there.
    """
    _require_safe(url)
    opener = urllib.request.build_opener(_SafeRedirects())
    request = urllib.request.Request(url, headers={"User-Agent": "model-compression"}, method="HEAD")
    try:
        opener.open(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{_host(url)} is not reached: {_plain(error)}") from error


def _fetch_all(url: str, target: Path, max_bytes: int) -> None:
    """Connects until the file is complete; gives up when the first connection brings nothing, or three in a row do."""
    received, barren = False, 0
    while True:
        before = _size(target)
        try:
            if _fetch_once(url, target, max_bytes):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                target.unlink()  # it holds more than the file has
                continue
            raise DataError(f"{url} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = _plain(error)
        gained = _size(target) > before
        received, barren = received or gained, 0 if gained else barren + 1
        if not received:
            raise DataError(f"{_host(url)} is not reached: {reason}")
        if barren >= PATIENCE:
            raise DataError(f"{_host(url)} fails after {_size(target)} bytes: {reason}; run again to go on from there")
        time.sleep(PAUSE_S)


def _fetch_once(url: str, target: Path, max_bytes: int) -> bool:
    """One connection; returns whether the file is complete. Starts anew when the server ignores the range."""
    offset = _size(target)
    headers = {"User-Agent": "model-compression", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    opener = urllib.request.build_opener(_SafeRedirects())
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        if response.status != http.client.PARTIAL_CONTENT or not _continues(response, offset):
            if offset and response.status == http.client.PARTIAL_CONTENT:
                raise DataError(f"{url} answered another range than the one asked for")
            offset = 0
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() else None
        if total is not None and total > max_bytes:
            raise DataError(f"{url} announces {total} bytes; expected at most {max_bytes}")
        with shown(_host(url), total) as progress:
            size = _append(response, target, offset, max_bytes, progress)
    return total is None or size == total


def _append(response: IO[bytes], target: Path, offset: int, max_bytes: int, progress: Callable[[int], None]) -> int:
    """Writes what comes to ``target`` from ``offset`` on and returns the size reached; a cut leaves what came."""
    size = offset
    with _opened(target, "ab" if offset else "wb") as file:
        while chunk := response.read(CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                raise DataError(f"the server sends more than the {max_bytes} bytes that were expected")
            try:
                file.write(chunk)
            except OSError as error:
                raise _no_room(target, error) from error
            progress(size)
    return size


def _opened(target: Path, mode: str) -> IO[bytes]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return open(target, mode, buffering=0)  # unbuffered: closing it cannot fail for want of room
    except OSError as error:
        raise writing_failed(target, error) from error


def _no_room(target: Path, error: OSError) -> Exception:
    target.unlink(missing_ok=True)  # half a download on a full disk helps nobody
    return writing_failed(target, error)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_safe(newurl)
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url} redirects to {newurl}, which is not https; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        return
    raise DataError(f"{url} is refused: downloads are made over https only")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _continues(response: Any, offset: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _plain(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
