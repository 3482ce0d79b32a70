"""The served report answers on this machine only, follows the records, and ends cleanly."""

from __future__ import annotations

import http.client
import socket
import threading
from urllib.parse import urlsplit

import pytest

from analysis.errors import AnalysisError
from analysis.report import Stated
from analysis.report.watch import Watched, drawing, serving

HOSTS = ["127.0.0.1", "localhost", "localhost:9999", "LOCALHOST"]
OTHERS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost:x"]


def get(address, path="/", *, host=None, method="GET"):
    port = urlsplit(address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


@pytest.fixture
def served(tmp_path):
    with serving(Watched(tmp_path, str)) as address:
        yield address


def watched(writer, study):
    return Watched(writer.root / study, drawing(writer.root, Stated(study=study)))


def test_it_is_bound_to_the_loopback_interface_alone(served):
    assert urlsplit(served).hostname == "127.0.0.1"
    with pytest.raises(OSError), socket.socket() as other:
        other.bind(("127.0.0.1", urlsplit(served).port))
    with socket.socket() as other:  # free everywhere else
        other.bind(("127.0.0.2", urlsplit(served).port))


@pytest.mark.parametrize("host", HOSTS)
def test_it_answers_to_its_own_names(served, host):
    answer, body = get(served, "/version", host=host)
    assert answer.status == 200
    assert body


@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("path", ["/", "/version", "/other"])
def test_it_refuses_other_hosts(served, host, path):
    answer, body = get(served, path, host=host)
    assert answer.status == 421
    assert "<html" not in body


def test_nothing_else_is_served(served):
    assert get(served, "/../../etc/passwd")[0].status == 404
    assert get(served, "/", method="POST")[0].status == 501
    answer, body = get(served, "/version", method="HEAD")
    assert (answer.status, body) == (200, "")


def test_the_page_follows_the_records(writer):
    page = watched(writer, "later")
    with serving(page) as address:
        _, first = get(address)
        assert "There are no records yet." in first
        version = get(address, "/version")[1]
        assert f'data-version="{version}"' in first
        assert get(address)[1] == first
        writer.study = "later"
        writer.failed(writer.cell(16))
        page._next = 0.0  # as if enough time had gone by
        assert get(address, "/version")[1] != version
        answer, second = get(address)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "0 of 1</strong> cells" in second


def test_drawing_takes_only_its_share_of_the_time(writer):
    """The page is not drawn at each change of a running cell."""
    writer.failed(writer.cell(16))
    page = Watched(writer.root / writer.study, lambda live: live.version)
    first = page.page()
    assert page.version() == first
    writer.failed(writer.cell(64))
    assert (page.page(), page.version()) == (first, first)
    page._next = 0.0
    assert page.version() != first
    assert page.page() == page.version() != first


def test_a_page_that_cannot_be_drawn_is_one_line(tmp_path):
    with serving(Watched(tmp_path, lambda live: [][0])) as address:
        answer, body = get(address)
    assert answer.status == 500
    assert body.startswith("the page cannot be drawn: IndexError")
    assert body.count("\n") == 1


def test_a_taken_port_is_one_line(served, tmp_path):
    with (
        pytest.raises(AnalysisError, match=r"cannot serve on port .* give another --port"),
        serving(Watched(tmp_path, str), port=urlsplit(served).port),
    ):
        pass


def test_it_ends_with_its_block(tmp_path):
    before = threading.active_count()
    with serving(Watched(tmp_path, str)) as address:
        get(address, "/version")
    assert threading.active_count() <= before + 1  # an answer may still be on its way out
    with pytest.raises(ConnectionRefusedError):
        get(address)
    with serving(Watched(tmp_path, str), port=urlsplit(address).port) as again:
        assert get(again, "/version")[0].status == 200
