"""A stand-in for the hub on the loopback: what huggingface_hub 2.4 and datasets 5.2 ask of it, and a log of it all.

`HF_ENDPOINT` leads the libraries here; any other address leads through a proxy that only notes what was asked of it.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = hashlib.sha1(b"stand-in hub").hexdigest()


@dataclass(frozen=True)
class Repository:
    """A repository whose one commit is what lies in a folder; `kind` is `models` or `datasets`."""

    kind: str
    id: str
    folder: Path

    @property
    def pages(self) -> str:
        """The path in front of `/resolve/...`."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    def record(self) -> dict[str, Any]:
        files = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return {
            "id": self.id,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in files],
        }

    def tree(self, inside: str, recursive: bool) -> list[dict[str, Any]] | None:
        """Entries of a folder of the repository, or None where there is no such folder."""
        top = self.folder / inside
        if not top.is_dir():
            return None
        found = sorted(top.rglob("*") if recursive else top.iterdir())
        return [self._entry(path) for path in found]

    def _entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
        return {"type": "file", "path": name, "oid": etag(path), "size": path.stat().st_size}


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@dataclass
class Log:
    """What was asked, as `METHOD path?query`."""

    requests: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """A running stand-in.

    Attributes:
        endpoint: what HF_ENDPOINT must be.
        outside: a proxy for every other address.
        log: what the stand-in was asked.
        outside_log: what anything else was asked.
    """

    endpoint: str
    outside: str
    log: Log
    outside_log: Log


@contextmanager
def running_hub(*repositories: Repository) -> Iterator[Hub]:
    log, outside_log = Log(), Log()
    pages = type("Pages", (_Pages,), {"repositories": repositories, "log": log})
    nothing = type("Nothing", (_Nothing,), {"log": outside_log})
    with _serving(pages) as endpoint, _serving(nothing) as outside:
        yield Hub(endpoint, outside, log, outside_log)


def closed_endpoint() -> str:
    """An address of this machine where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent_endpoint() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Logged(BaseHTTPRequestHandler):
    log: ClassVar[Log]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: the log is for the tests."""

    def note(self) -> None:
        self.log.requests.append(f"{self.command} {self.path}")

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _Nothing(_Logged):
    """Refuses everything."""

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        self.close_connection = True
        if self.raw_requestline and self.parse_request():
            self.note()
            self.answer(403, b"", {"Connection": "close"})


class _Pages(_Logged):
    repositories: ClassVar[tuple[Repository, ...]]

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
        elif self.parse_request():
            self.note()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.get() if self.command in ("GET", "HEAD") else self.not_found("EntryNotFound")

    def get(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
        if path == "":
            self.answer(200, b"", {"Content-Type": "text/html"})
        elif path.startswith("api/"):
            self.api(path.removeprefix("api/"), recursive)
        else:
            self.page(path)

    def api(self, path: str, recursive: bool) -> None:
        repository = next((r for r in self.repositories if f"{path}/".startswith(f"{r.kind}/{r.id}/")), None)
        if repository is None:
            return self.not_found("RepoNotFound")
        verb, _, rest = path.removeprefix(f"{repository.kind}/{repository.id}").strip("/").partition("/")
        revision, _, inside = rest.partition("/")
        if verb and revision not in ("main", COMMIT):
            return self.not_found("RevisionNotFound")
        if verb in ("", "revision"):
            return self.json(repository.record())
        entries = repository.tree(inside, recursive) if verb == "tree" else None
        return self.not_found("EntryNotFound") if entries is None else self.json(entries)

    def page(self, path: str) -> None:
        repository = next((r for r in self.repositories if path.startswith(f"{r.pages}/resolve/")), None)
        if repository is None:
            return self.not_found("RepoNotFound")
        revision, _, name = path.removeprefix(f"{repository.pages}/resolve/").partition("/")
        if revision not in ("main", COMMIT):
            return self.not_found("RevisionNotFound")
        file = repository.folder / name
        if not file.is_file() or not file.resolve().is_relative_to(repository.folder.resolve()):
            return self.not_found("EntryNotFound")
        return self.answer(
            200,
            file.read_bytes(),
            {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"},
        )

    def json(self, record: Any) -> None:
        self.answer(200, json.dumps(record).encode(), {"Content-Type": "application/json", "X-Repo-Commit": COMMIT})

    def not_found(self, code: str) -> None:
        self.answer(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT, "Content-Type": "application/json"})
