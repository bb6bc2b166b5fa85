"""An object store on this machine: what of S3 a reader needs, over loopback, from a folder of files.

Bucket and key are the first and the other parts of a path below the folder. Requests are counted by method and path.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Store(ThreadingHTTPServer):
    """`requests` counts what was asked; `broken`: every read of content ends half way."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.requests, self.broken = folder, Counter[str](), False

    def url(self, path: str) -> str:
        """Of a bucket and key, as a plan has it."""
        port = self.server_address[1]
        return f"s3://key:secret@{path}?scheme=http&endpoint_override=127.0.0.1%3A{port}&region=us-east-1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        told = urlsplit(self.path)
        path = self.server.folder / unquote(told.path).strip("/")
        self.server.requests[f"{self.command} {path.name}"] += 1
        if "list-type" in (asked := parse_qs(told.query)) and path.is_dir():
            return self._send(200, self._listing(path, asked), "application/xml", with_body)
        if path.is_dir() and path.parent == self.server.folder:
            return self._send(200, b"", "application/xml", with_body)
        if not path.is_file():
            error = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            return self._send(404, error, "application/xml", with_body)
        data, code, more = path.read_bytes(), 200, {}
        if (given := self.headers.get("Range")) is not None:
            first, _, last = given.removeprefix("bytes=").partition("-")
            size, begin = len(data), int(first)
            data = data[begin : int(last) + 1 if last else None]
            code, more = 206, {"Content-Range": f"bytes {begin}-{begin + len(data) - 1}/{size}"}
        more |= {"Last-Modified": formatdate(path.stat().st_mtime, usegmt=True), "ETag": '"1"'}
        return self._send(code, data, "application/octet-stream", with_body, more)

    def _listing(self, bucket: Path, asked: dict[str, list[str]]) -> bytes:
        prefix, found = asked.get("prefix", [""])[0], []
        for path in sorted(bucket.rglob("*")):
            key = str(path.relative_to(bucket))
            if path.is_file() and key.startswith(prefix) and "/" not in key[len(prefix) :]:
                found.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                    f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        return (
            f"<ListBucketResult><Name>{bucket.name}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(found)}</ListBucketResult>"
        ).encode()

    def _send(self, code: int, data: bytes, kind: str, with_body: bool, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data[: len(data) // 2] if self.server.broken and code < 300 and len(data) > 4096 else data)
            if self.server.broken:
                self.close_connection = True


@contextmanager
def object_store(folder: Path) -> Iterator[Store]:
    """One that serves `folder` while the block runs."""
    store = Store(folder)
    thread = threading.Thread(target=store.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()
        thread.join()
