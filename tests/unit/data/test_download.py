"""Downloads from a server on this machine that cuts, ignores ranges, lies, redirects and is not there."""

import hashlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from model_compression.core.errors import DataError, ModelCompressionError
from model_compression.data import cifar10_content as content
from model_compression.data import cifar10_official
from model_compression.data import download as module
from model_compression.data.download import download, require_reachable

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; ``cuts`` are the numbers of bytes after which the next connections are cut."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.ranges_seen = CONTENT, [], []
        self.ignore_ranges = self.shift_ranges = self.hide_length = False
        self.status, self.location, self.stall = 200, None, threading.Event()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(405)

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges_seen.append(asked)
        start = 0
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        if asked and not server.ignore_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            shown = start + 1 if server.shift_ranges else start
            self.send_header("Content-Range", f"bytes {shown}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        if not server.hide_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        body = server.content[start:]
        if server.cuts:
            cut = server.cuts.pop(0)
            self.wfile.write(body[:cut])
            if cut == 0:
                server.stall.wait(10)
            return  # the connection is closed too early
        self.wfile.write(body)

    def log_message(self, *args):
        """Keeps the output of the tests clean."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.stall.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.part"


def fetch(server, target, max_bytes=2_000_000):
    download(server.url, target, sha256=SHA256, max_bytes=max_bytes)


def test_download_writes_the_file(server, target):
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges_seen == [None]


def test_download_resumes_where_it_was_cut(server, target):
    server.cuts = [300_000, 5]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges_seen == [None, "bytes=300000-", "bytes=300005-"]


def test_download_resumes_what_an_earlier_call_left(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:1000])
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges_seen == ["bytes=1000-"]


def test_download_asks_nobody_when_the_file_is_complete(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    fetch(server, target)
    assert server.ranges_seen == []


def test_download_starts_anew_when_the_server_ignores_ranges(server, target):
    server.ignore_ranges, server.cuts = True, [300_000]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges_seen == [None, "bytes=300000-"]


def test_download_starts_anew_when_what_was_left_is_of_another_file(server, target):
    target.parent.mkdir()
    target.write_bytes(b"x" * 1000)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges_seen == ["bytes=1000-", None]


def test_download_starts_anew_when_what_was_left_is_too_long(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT + b"more")
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_download_refuses_a_range_that_it_did_not_ask_for(server, target):
    server.shift_ranges, server.cuts = True, [300_000]
    with pytest.raises(DataError, match="another range"):
        fetch(server, target)


def test_download_refuses_another_content_and_removes_it(server, target):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=f"expected {SHA256}; it is not the published file"):
        fetch(server, target)
    assert not target.exists()


@pytest.mark.parametrize("hide_length", [False, True])
def test_download_refuses_more_bytes_than_expected(server, target, hide_length):
    server.hide_length = hide_length
    with pytest.raises(DataError, match="1000"):
        fetch(server, target, max_bytes=1000)
    assert not target.exists() or target.stat().st_size <= 1000


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_download_gives_up_at_once_on_an_error_of_the_server(server, target, status):
    server.status = status
    with pytest.raises(DataError, match=f"answered {status}"):
        fetch(server, target)
    assert len(server.ranges_seen) == 1


def test_download_gives_up_when_nothing_more_comes_and_keeps_what_came(server, target, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    server.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"fails after 300000 bytes: .*run again to go on from there"):
        fetch(server, target)
    assert target.read_bytes() == CONTENT[:300_000]


def test_download_names_a_server_that_is_not_there(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=f"127.0.0.1:{port} is not reached: Connection refused"):
        download(f"http://127.0.0.1:{port}/x", target, sha256=SHA256, max_bytes=10)
    assert not target.exists()


@pytest.mark.parametrize(
    "url", ["http://www.cs.toronto.edu/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1.example.org/x"]
)
def test_download_speaks_https_only(target, url):
    with pytest.raises(DataError, match="over https only"):
        download(url, target, sha256=SHA256, max_bytes=10)


@pytest.mark.parametrize("location", ["http://www.cs.toronto.edu/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_download_refuses_a_redirect_to_something_unsafe(server, target, location):
    server.location = location
    with pytest.raises(DataError, match=r"refused|answered 302"):
        fetch(server, target)
    assert not target.exists()


def test_download_does_not_fall_back_to_http_when_tls_fails(server, target):
    with pytest.raises(DataError, match="is not reached"):
        download(server.url.replace("http:", "https:"), target, sha256=SHA256, max_bytes=2_000_000)
    assert server.ranges_seen == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with the openssl command")
def test_download_refuses_a_certificate_that_nobody_vouches_for(server, target, tmp_path):
    names = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(DataError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        download(server.url.replace("http:", "https:"), target, sha256=SHA256, max_bytes=2_000_000)
    assert server.ranges_seen == []


def test_download_names_a_full_disk_and_leaves_nothing(server, tmp_path):
    target = tmp_path / "file.part"
    target.symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(ModelCompressionError, match="the disk is full; free some space") as caught:
        fetch(server, target)
    assert not isinstance(caught.value, DataError)  # which would send the caller on to the next source
    assert not os.path.lexists(target)


def test_require_reachable_takes_any_answer(server):
    require_reachable(server.url)


def test_require_reachable_gives_up_on_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(DataError, match="is not reached: timed out"):
            require_reachable(f"http://127.0.0.1:{deaf.getsockname()[1]}")


def test_fetch_official_downloads_proves_and_reads_the_binary_archive(server, tiny, tmp_path, monkeypatch):
    server.content = tiny.archive(tmp_path / "made.tar.gz", "bin").read_bytes()
    server.cuts = [50_000]
    monkeypatch.setattr(cifar10_official, "URL", server.url)
    monkeypatch.setattr(cifar10_official, "ARCHIVE_SHA256", hashlib.sha256(server.content).hexdigest())
    content.verify(cifar10_official.fetch_official(tmp_path / "workspace"), "the site")
    assert server.ranges_seen == [None, "bytes=50000-"]


def test_the_official_address_is_https():
    assert cifar10_official.URL.startswith("https://")
