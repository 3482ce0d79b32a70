"""What a bucket's server refuses is one line; what passes, gcsfs tries again by itself."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from types import SimpleNamespace

import gcsfs
import pytest

from analysis.records.record import content
from study.records.record import Progress, Record
from study.records.storage import (
    RecordError,
    listdir,
    mtime,
    read,
    resolve,
    unlink,
    write,
    write_new,
)
from sweeps.runner.cancellation import cancel, clear, is_cancelled
from sweeps.runner.lease_file import LEASE, Lease, holder_of


class Gate(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the server, but for those that `faults` are for: 0 is a reset."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        faults, to = self.server.faults, self.server.to
        fault = faults.pop(0) if faults else self.server.always
        if fault == 0:
            self.close_connection = True
            return
        if fault is not None:
            status, content = fault, b'{"error": {"message": "not now"}}'
        else:
            headers = {k: v for k, v in self.headers.items() if k != "Host"}
            with contextlib.closing(http.client.HTTPConnection(to)) as passed:
                passed.request(self.command, self.path, body, headers)
                got = passed.getresponse()
                status, content = got.status, got.read()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def gate(gcs, monkeypatch):
    """A gate before the server, which gcsfs meets instead; it waits for no second try."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.faults, server.always, server.to = [], None, gcs.url.removeprefix("http://")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")

    async def at_once(seconds: float) -> None:
        return None

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=at_once))
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.root = resolve(f"gs://{gcs.bucket()}/runs")
    yield server
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("fault", [503, 500, 429, 408, 0])
def test_what_passes_is_tried_again_by_gcsfs(gate, fault):
    path = gate.root / "s/x/a"
    for call, answer in (
        (lambda: write(path, b"1"), None),
        (lambda: write_new(path, b"2"), False),
        (lambda: read(path), b"1"),
        (lambda: listdir(path.parent), [path]),
        (lambda: content(path), b"1"),
        (lambda: unlink(path), None),
    ):
        gate.faults[:] = [fault, fault]
        assert call() == answer
        assert gate.faults == []


@pytest.mark.parametrize("fault", [400, 401, 403, 503])
def test_what_is_refused_is_one_line_that_names_bucket_and_action(gate, fault):
    folder = gate.root / "s" / "x"
    gate.always = fault
    calls = {
        "write": [
            lambda: write(folder / "a", b"1"),
            lambda: write_new(folder / "a", b"1"),
            lambda: unlink(folder / "a"),
            lambda: cancel(folder),
            lambda: clear(folder),
        ],
        "read": [
            lambda: read(folder / "a"),
            lambda: listdir(folder),
            lambda: mtime(folder / "a"),
            lambda: is_cancelled(folder),
            lambda: holder_of(folder / LEASE),
            lambda: Lease.acquire(folder / LEASE),
            lambda: Record(folder).begin({"hash": "a"}, seen=Progress(0, 0, 0)),
            lambda: content(folder / "a"),
        ],
    }
    for action, all_of_it in calls.items():
        for call in all_of_it:
            with pytest.raises(RecordError) as error:
                call()
            assert str(error.value).startswith(f"cannot {action} {folder}")
            assert "\n" not in str(error.value)


def test_the_command_line_says_it_in_one_line(gate, study, tmp_path):
    (tmp_path / "own.py").write_text(
        "from study.config import Cell\nfrom sweeps.study import Study\n"
        "def study():\n    return Study(name='s', question='?', cells=(Cell(batch_size=16),))\n"
    )
    for verb in ("status", "cancel", "run", "figures", "claims"):
        gate.faults[:] = [200]  # the bucket itself answers, and lets nobody in
        gate.always = 403
        code, out, err = study(verb, "own.py", "--root", str(gate.root))
        assert (code, out, err.count("\n")) == (2, "", 1), verb
        assert str(gate.root) in err
