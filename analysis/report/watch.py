"""The report served on this machine alone, drawn again when records change."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.figures.inputs import Inputs
from analysis.records.lines import METRICS, PARTS
from analysis.records.record import WHOLE
from analysis.records.storage import place
from analysis.report.files import read
from analysis.report.page import Live, html
from analysis.report.stated import Stated

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
EVERY = 5.0  # seconds between two looks
FILES = (*WHOLE, METRICS)
SHARE = 0.2  # of the time may go into drawing, since cells may train beside it


def drawing(
    root: str | Path, stated: Stated, *, metric: str | None = None
) -> Callable[[Live], str]:
    """Draws the page from what is recorded by then; without a record it says so."""

    def draw(live: Live) -> str:
        begun = (place(root) / stated.folder).is_dir()
        inputs = read(root, stated, metric=metric) if begun else Inputs(metric=metric)
        return html(inputs, stated, live=live)

    return draw


class Watched:
    """A page as of its last drawing; drawn when it is asked for and its records have changed.

    Args:
      folder: of the study's records; it need not exist yet.
      every: seconds between two looks of a browser.
    """

    def __init__(self, folder: Path, draw: Callable[[Live], str], *, every: float = EVERY):
        self._folder, self._draw, self._every = folder, draw, every
        self._lock = threading.Lock()
        self._version, self._page, self._next = "", "", 0.0

    def version(self) -> str:
        """Of the page that `page` would return now."""
        with self._lock:
            return self._due() or self._version

    def page(self) -> str:
        """The page, at most `SHARE` of the time spent on drawing it.

        Raises:
          AnalysisError: the records cannot be read.
        """
        with self._lock:
            if version := self._due():
                began = time.monotonic()
                self._page = self._draw(Live(version=version, every=self._every))
                self._version, now = version, time.monotonic()
                self._next = now + max(self._every, (now - began) * (1 / SHARE - 1))
            return self._page

    def _due(self) -> str:
        """The version to draw, or "" where there is none or it is too soon."""
        if time.monotonic() < self._next:
            return ""
        version = stamp(self._folder)
        return "" if version == self._version else version


def stamp(folder: Path) -> str:
    """Changes when a record in the folder of a study does; reads no file."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*/*"), *folder.glob(f"*/{PARTS}/*")]):
        if path.name in FILES or path.parent.name == PARTS:
            with contextlib.suppress(FileNotFoundError):  # FAILED.json goes when a cell is retried
                state = path.stat()
                digest.update(f"{path}\0{state.st_size}\0{state.st_mtime}\0".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def serving(page: Watched, *, port: int = 0) -> Iterator[str]:
    """Serves the page on the loopback interface while the block runs; yields its address.

    Requests that name another host are refused, so that no web page elsewhere can read it by
    pointing a name of its own at this machine.

    Args:
      port: 0 is any free one.

    Raises:
      AnalysisError: the port is taken or not allowed.
    """
    try:
        server = _Server((LOOPBACK, port), _handler(page))
    except (OSError, OverflowError) as error:
        raise AnalysisError(
            f"cannot serve on port {port}: {getattr(error, 'strerror', None) or error}; give "
            "another --port, or 0 for any free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""


def _handler(page: Watched) -> type[BaseHTTPRequestHandler]:
    answers: dict[str, tuple[str, Callable[[], str]]] = {
        "/": ("text/html", page.page),
        "/version": ("text/plain", page.version),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = re.sub(r":\d+$", "", self.headers.get("Host", "").lower())
            if host not in NAMES:  # any port: it may be forwarded
                self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", "not for this host\n")
                return
            kind, make = answers.get(self.path.partition("?")[0], ("", None))
            if make is None:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is only /\n")
                return
            try:
                self._answer(HTTPStatus.OK, kind, make())
            except ConnectionError:
                raise
            except Exception as error:
                said = str(error) if isinstance(error, AnalysisError) else repr(error)
                text = f"the page cannot be drawn: {said}\n"
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", text)

        do_HEAD = do_GET

        def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
