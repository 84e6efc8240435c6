"""A stand-in for the Hugging Face hub on loopback: repositories in memory, over the protocol that its client speaks."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"
COMMIT = "1" * 40


class Hub:
    """``repositories``: name → {"private": bool, "commits": [(message, {path: content})]}."""

    def __init__(self):
        self.repositories, self.objects, self.address = {}, {}, ""

    def files(self, repo):
        return self.repositories[repo]["commits"][-1][1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *values):
        pass

    def reply(self, status, body=b"", headers=()):
        body = json.dumps(body).encode() if isinstance(body, dict | list) else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        path, body = urlsplit(self.path).path, self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.hub.repositories:
                return self.reply(409, {"error": "You already created this model repo", "url": self.url(name)})
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.repositories[name] = {"private": bool(private), "commits": []}
            return self.reply(200, {"url": self.url(name), "name": name})
        if path == "/api/validate-yaml":  # the front matter of a model card
            return self.reply(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            answer = [
                {**o, "actions": {"upload": {"href": f"{self.hub.address}/upload/{o['oid']}", "header": {}}}}
                for o in objects
            ]
            return self.reply(200, {"transfer": "basic", "objects": answer})
        if "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            return self.commit(repo, [json.loads(line) for line in body.splitlines()])
        return self.reply(404, {"error": f"no such place: {path}"})

    def commit(self, repo, lines):
        files, message = {}, ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commits = self.hub.repositories[repo]["commits"]
        commits.append((message, {**(commits[-1][1] if commits else {}), **files}))
        self.reply(200, {"commitUrl": f"{self.url(repo)}/commit/1", "commitOid": COMMIT, "success": True})

    def do_PUT(self):
        content = self.body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.hub.objects[self.path.rpartition("/")[2]] = content
        self.reply(200)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        repo, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if not rest or repo not in self.hub.repositories:
            return self.reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", COMMIT):
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        content = self.hub.files(repo).get(name)
        if content is None:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self.reply(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    do_HEAD = do_GET

    def url(self, repo):
        return f"{self.hub.address}/{repo}"


@contextmanager
def serving():
    """A hub that answers until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
