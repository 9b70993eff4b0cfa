"""A hub on loopback: repositories in memory, which take commits as the real one does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

OID = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What the server has been told.

    Attributes:
        address: of the server.
        refuse: the status with which it answers a commit; None: it takes it.
        repositories: by name, the content of each file.
        private: names of repositories that only their owner sees.
        messages: of the commits.
        tokens: that requests to repositories came with.
    """

    address: str = ""
    refuse: int | None = None
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What sends a process that imports huggingface_hub here, with a token."""
        own = {"HF_ENDPOINT": self.address, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
        return own | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        """Make a repository, unless there is one."""
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.repositories else 200
        if status == 200:
            self.repositories[name] = {}
            if asked.get("visibility") == "private" or asked.get("private"):
                self.private.add(name)
        return status, {"url": f"{self.address}/{name}"}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        """Take the files of a commit, sent along or uploaded before."""
        if self.refuse is not None:
            return self.refuse, {"error": "this token may not write"}
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        url = f"{self.address}/{name}/commit/{OID}"
        return 200, {"commitUrl": url, "commitOid": OID, "success": True}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of one request."""
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4])
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if parts[0] == "blobs":
            self.blobs[parts[1]] = body
            return 200, {}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [{"upload": {"href": f"{self.address}/blobs/{o['oid']}"}} for o in objects]
            pairs = zip(objects, upload, strict=True)
            return 200, {"objects": [{**o, "actions": a} for o, a in pairs]}
        if parts[:2] != ["api", "models"] or name not in self.repositories:
            return 404, {"error": f"{method} {path}"}
        if len(parts) == 4:
            return 200, {"id": name, "private": name in self.private, "sha": OID}
        if parts[4] == "tree":
            files = self.repositories[name]
            return 200, [{"type": "file", "path": f, "size": 1, "oid": OID} for f in files]
        if parts[4] == "preupload":
            asked = json.loads(body)["files"]
            large = {True: "lfs", False: "regular"}
            modes = [large[f["path"].endswith(".safetensors")] for f in asked]
            pairs = zip(asked, modes, strict=True)
            files = [{"path": f["path"], "uploadMode": m, "shouldIgnore": False} for f, m in pairs]
            return 200, {"files": files}
        return self.commit(name, [json.loads(line) for line in body.splitlines()])


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers until the end of the block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            if path.startswith(("/api/models", "/api/repos")):
                hub.tokens.add(self.headers.get("Authorization"))
            status, content = hub.answer(self.command, path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
