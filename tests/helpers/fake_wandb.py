"""As much of a W&B server as an SDK needs to open, resume and finish a run."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

PROJECT = {"id": "p", "name": "nsvd_exp", "entity": {"id": "e", "name": "me"}}


class FakeWandb(http.server.ThreadingHTTPServer):
    """Keeps what it is told.

    Attributes:
        broken: whether every answer is 500.
        queries: GraphQL requests, (text, variables).
        history: lines of each run's history, placed where the SDK said that they belong.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.broken = False
        self.queries: list[tuple[str, dict[str, Any]]] = []
        self.history: dict[str, dict[int, dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[FakeWandb]:
        with cls() as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    def handle_error(self, *_: Any) -> None:
        """An SDK that is done hangs up."""

    def bucket(self, name: str) -> dict[str, Any]:
        """A run, as GraphQL describes it."""
        lines = self.history[name]
        tail = [json.dumps(lines[max(lines)])] if lines else []
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "config": "{}",
            "summaryMetrics": "{}",
            "historyLineCount": len(lines),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": '{"t": 1}',
            "project": PROJECT,
        }

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL answer."""
        self.queries.append((query, variables))
        name = str(variables.get("name"))
        if "upsertBucket" in query:
            known = name in self.history
            self.history.setdefault(name, {})
            return {"upsertBucket": {"bucket": self.bucket(name), "inserted": not known}}
        if "RunResumeStatus" in query:
            return {"model": {**PROJECT, "bucket": self.history.get(name) and self.bucket(name)}}
        if "createRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/{f}"} for f in variables["files"]]
            return {
                "createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}
            }
        viewer = {
            "id": "u",
            "username": "me",
            "entity": "me",
            "flags": "{}",
            "teams": {"edges": []},
        }
        return {"viewer": viewer}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeWandb

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            request = json.loads(body)
            variables = request.get("variables") or {}
            answer = {"data": self.server.answer(request["query"], variables)}
        elif self.path.endswith("/file_stream"):
            told = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if told:
                lines = self.server.history[self.path.split("/")[-2]]
                content = map(json.loads, told["content"])
                lines |= dict(enumerate(content, told["offset"]))
        encoded = json.dumps(answer).encode()
        self.send_response(500 if self.server.broken else 200)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)
