"""Downloads from a server on this machine that cuts, lies, redirects and is not there."""

import contextlib
import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from model_compression.core.errors import DataError
from model_compression.data import fetching
from model_compression.data.fetching import download

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content``; ``cut`` is the number of bytes after which the connection is cut."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.num_requests = CONTENT, None, 0
        self.hide_length, self.status, self.location, self.stall = False, 200, None, threading.Event()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.num_requests += 1
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            server.location = None
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        self.send_response(200)
        if not server.hide_length:
            self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[: server.cut])
        if server.cut == 0:
            server.stall.wait(10)

    def log_message(self, *args):
        """Keeps the output of the tests clean."""


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.stall.set()
    made.shutdown()
    thread.join()
    made.server_close()


def fetch(url, max_bytes=2_000_000):
    return download(url, sha256=SHA256, max_bytes=max_bytes)


@pytest.mark.parametrize("hide_length", [False, True])
def test_download_gives_the_file_also_by_a_redirect(server, hide_length):
    server.hide_length = hide_length
    assert fetch(server.url) == CONTENT
    server.location = "/elsewhere"
    assert fetch(server.url, max_bytes=len(CONTENT)) == CONTENT
    assert server.num_requests == 3


def test_download_refuses_another_content(server):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=f"expected {SHA256}; it is cut, or not the published one"):
        fetch(server.url)


def test_download_refuses_a_file_that_was_cut(server):
    server.cut = 300_000
    with pytest.raises(DataError, match=r"it is cut|after \d+ bytes"):
        fetch(server.url)


@pytest.mark.parametrize("hide_length", [False, True])
def test_download_stops_at_more_bytes_than_expected(server, hide_length, monkeypatch):
    server.hide_length, received = hide_length, []
    show = contextlib.nullcontext(lambda done, total: received.append(done))
    monkeypatch.setattr(fetching, "show_progress", lambda label: show)
    with pytest.raises(DataError, match="sends more than the 1000 bytes"):
        fetch(server.url, max_bytes=1000)
    assert max(received) <= 1000 + fetching.CHUNK_BYTES


@pytest.mark.parametrize("status", [403, 404, 503])
def test_download_gives_up_at_once_on_an_error_of_the_server(server, status):
    server.status = status
    with pytest.raises(DataError, match=f"answered {status}"):
        fetch(server.url)
    assert server.num_requests == 1


def test_download_names_a_server_that_says_nothing(server, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.1)
    server.cut = 0
    with pytest.raises(DataError, match=r"127.0.0.1:\d+ fails after 0 bytes: timed out"):
        fetch(server.url)


def test_download_names_a_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=f"127.0.0.1:{port} fails after 0 bytes: Connection refused"):
        fetch(f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize(
    "url", ["http://www.cs.toronto.edu/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1.example.org/x"]
)
def test_download_speaks_https_only(url):
    with pytest.raises(DataError, match="over https only"):
        fetch(url)


@pytest.mark.parametrize("location", ["http://www.cs.toronto.edu/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_download_refuses_a_redirect_to_something_unsafe(server, location):
    server.location = location
    with pytest.raises(DataError, match=r"over https only|answered 302"):
        fetch(server.url)
    assert server.num_requests == 1


def test_download_does_not_fall_back_to_http_when_tls_fails(server):
    with pytest.raises(DataError, match=r"fails after 0 bytes: .*SSL"):
        fetch(server.url.replace("http:", "https:"))
    assert server.num_requests == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with the openssl command")
def test_https_needs_a_certificate_that_is_trusted_and_never_leads_to_http(server, tmp_path, monkeypatch):
    names = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=127.0.0.1"]
    names += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(DataError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        fetch(url)
    assert server.num_requests == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert fetch(url) == CONTENT
    server.location = server.url  # of this machine, by http
    with pytest.raises(DataError, match=f"{server.url} is refused: downloads are made over https only"):
        fetch(url)
