"""A gate before a Google Cloud Storage server, which refuses or loses requests as it is told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from typing import Any

LOST = -1  # passes the request on, and drops the response
RESET = 0  # drops the request
TRUNCATED = -2  # passes the request on, and half of the body of the response
HANG = -3  # passes nothing on, and keeps the connection open until the gate closes


class Gate(http.server.ThreadingHTTPServer):
    """Passes requests on to the server.

    Attributes:
      url: its address.
      faults: what happens to the next requests: an HTTP status, or `RESET`, `LOST`, `TRUNCATED`,
        `HANG`; None passes.
      always: what happens to all after these.
    """

    def __init__(self, to: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.to = to.removeprefix("http://")
        self.faults: list[int | None] = []
        self.always: int | None = None
        self.closing = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Gate

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault == RESET:
            self.close_connection = True
            return
        if fault == HANG:
            self.server.closing.wait(120)
            self.close_connection = True
            return
        if fault is not None and fault > 0:
            status, content, extent = fault, b'{"error": {"message": "not now"}}', None
        else:
            headers = {k: v for k, v in self.headers.items() if k != "Host"}
            with contextlib.closing(http.client.HTTPConnection(self.server.to)) as server:
                server.request(self.command, self.path, body, headers)
                response = server.getresponse()
                status, content = response.status, response.read()
                extent = response.headers["Content-Range"]
        if fault == LOST:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if extent is not None:
            self.send_header("Content-Range", extent)
        self.end_headers()
        if fault == TRUNCATED:
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def gate(to: str) -> Iterator[Gate]:
    """Runs a gate before the server at the address `to`."""
    server = Gate(to)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
