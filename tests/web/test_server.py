"""The server as others meet it: what it tells, what it refuses, and that it loses nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

import gaba
from _web_records import append, header, read, step_lines, write
from gaba.web._folder import Folder
from gaba.web._security import check_token
from gaba.web.server import STATIC, Server

SECRET = "the secret outside of the folder"


@contextmanager
def serving(path: Path | None, **settings: Any) -> Iterator[Server]:
    server = Server(path, port=settings.pop("port", 0), **settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, with a secret beside it and links that lead to the secret."""
    place = tmp_path_factory.mktemp("place")
    write(place / "runs" / "one" / "history.jsonl", step_lines(300, ("a", "b")))
    write(place / "runs" / "two.jsonl", step_lines(40, ("x", "y", "z")), ("x", "y", "z"))
    (place / "secret.jsonl").write_text(header(("a",), note=SECRET))
    (place / "hidden").mkdir()
    write(place / "hidden" / "history.jsonl", [], ("a",), note=SECRET)
    (place / "runs" / "link.jsonl").symlink_to(place / "secret.jsonl")
    (place / "runs" / "linked").symlink_to(place / "hidden")
    (place / "runs" / "notes.txt").write_text(SECRET)
    (place / "runs" / ".hidden.jsonl").write_text(header(("a",), note=SECRET))
    (place / "runs" / "other.jsonl").write_text(json.dumps({"note": SECRET}) + "\n")
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with serving(place / "runs") as server:
        yield server


def raw(server: Server, request: bytes, seconds: float = 10) -> bytes:
    """What the server answers to these very bytes, until it closes or has nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as client:
        found = b""
        with contextlib.suppress(OSError):  # the server need not take all of a huge request
            client.sendall(request)
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                found += part
        return found


def get(target: str, *more: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode()


# --- pages ---------------------------------------------------------------------------------------


def test_every_page_and_file_comes_with_a_strict_policy(server: Server) -> None:
    with httpx.Client(base_url=server.address) as client:
        files = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.*")]
        served = [f"static/{name}" for name in files if not name.endswith("LICENSE")]
        for target in ("", "live", *served, "api/runs", "nothing/here"):
            answer = client.get(target)
            assert answer.status_code == (404 if target == "nothing/here" else 200), target
            policy = dict(
                part.strip().split(" ", 1)
                for part in answer.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert "unsafe" not in str(policy)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers
        mark = client.get("live").headers["etag"]
        assert client.get("live", headers={"if-none-match": mark}).status_code == 304


@pytest.mark.parametrize("page", ["live/index.html", "explorer/index.html"])
def test_a_page_has_no_inline_script_or_style_and_names_no_other_host(page: str) -> None:
    text = (STATIC / page).read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", text) == []
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", text) == []


# --- only what is in the folder ------------------------------------------------------------------


def test_the_records_of_the_folder_are_found_and_no_others(server: Server) -> None:
    found = httpx.get(f"{server.address}api/runs").json()
    assert found == {"folder": "runs", "runs": ["one/history.jsonl", "two.jsonl"]}


OUTSIDE = [
    *("../secret.jsonl", "one/../../secret.jsonl", "..\\secret.jsonl", "link.jsonl"),
    *("linked/history.jsonl", "notes.txt", ".hidden.jsonl", "other.jsonl", "one", "", "."),
    *("/etc/passwd", "./two.jsonl", "two.jsonl/", "two.jsonl\x00", "%2e%2e/secret.jsonl"),
    "one//history.jsonl",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("end", ["stream?run=", "range?from=0&to=9&run="])
@pytest.mark.parametrize("coded", ["once", "twice", "all"])
def test_no_other_name_is_read(name: str, end: str, coded: str, server: Server) -> None:
    shown = {
        "once": quote(name, safe=""),
        "twice": quote(quote(name, safe=""), safe=""),
        "all": "".join(f"%{byte:02X}" for byte in name.encode()),
    }[coded]
    answer = raw(server, get(f"/api/{end}{shown}"))
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert SECRET.encode() not in answer


@pytest.mark.parametrize(
    "target",
    [
        *("/../secret.jsonl", "/static/../../../secret.jsonl", "/static/..%2f..%2fserver.py"),
        *("/static/%2e%2e/server.py", "/static//live/index.html", "//etc/passwd", "/etc/passwd"),
        *("/static/live/..\\..\\server.py", "/static/live/", "/server.py", "/%00", "/live/../live"),
    ],
)
def test_no_path_leads_to_a_file(target: str, server: Server) -> None:
    answer = raw(server, get(target))
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"import" not in answer
    assert SECRET.encode() not in answer


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege elsewhere")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_record_that_becomes_a_link_is_no_longer_read(what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "runs" / "one" / "history.jsonl", step_lines(3, ("a", "b")))
    write(tmp_path / "out" / "history.jsonl", [], ("a",), note=SECRET)
    folder = Folder(tmp_path / "runs")
    with folder.open("one/history.jsonl") as file:
        assert file.read(7) == b'{"gaba"'
    path.rename(tmp_path / "kept.jsonl")
    if what == "file":
        path.symlink_to(tmp_path / "out" / "history.jsonl")
    else:
        path.parent.rmdir()
        path.parent.symlink_to(tmp_path / "out")
    assert folder.names() == ("one/history.jsonl",)  # still remembered
    with pytest.raises(FileNotFoundError):
        folder.open("one/history.jsonl")


@pytest.mark.skipif(os.name != "posix", reason="there are no such files elsewhere")
def test_a_pipe_of_a_records_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history.jsonl")
    write(tmp_path / "good" / "history.jsonl", [])
    folder = Folder(tmp_path)
    assert folder.names() == ("good/history.jsonl",)


def test_one_record_alone_can_be_served(place: Path) -> None:
    with serving(place / "runs" / "two.jsonl") as server:
        assert httpx.get(f"{server.address}api/runs").json()["runs"] == ["two.jsonl"]
        assert httpx.get(f"{server.address}api/stream?run=one/history.jsonl").status_code == 404
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Server(place / "nowhere", port=0)


# --- requests that are refused -------------------------------------------------------------------

REFUSED = {
    "POST": (get("/").replace(b"GET", b"POST"), 405),
    "DELETE": (get("/live").replace(b"GET", b"DELETE"), 405),
    "a body": (get("/", "Content-Length: 10") + b"0123456789", 413),
    "a body in chunks": (get("/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n", 413),
    "a long address": (get("/api/stream?run=" + 9000 * "a"), 414),
    "a huge address": (get("/" + 200_000 * "a"), 0),
    "long headers": (get("/", "X-Long: " + 20_000 * "a"), 431),
    "huge headers": (get("/", *(f"X-{i}: {900 * 'a'}" for i in range(500))), 0),
    "no HTTP": (b"\x16\x03\x01\x02\x00 garbage\r\n\r\n", 400),
    "another host's name": (get("/").replace(b"127.0.0.1", b"evil.example"), 421),
    "no host's name": (b"GET / HTTP/1.0\r\n\r\n", 421),
    "a host like ours": (get("/").replace(b"127.0.0.1", b"localhost.evil.example:80"), 421),
    "many runs": (get("/api/stream?" + "&".join(f"run={i}" for i in range(9))), 400),
    "no steps": (get("/api/range?run=two.jsonl&from=x&to=2"), 400),
    "steps that are none": (get("/api/range?run=two.jsonl&from=nan&to=2"), 400),
    "steps the wrong way": (get("/api/range?run=two.jsonl&from=3&to=2"), 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_no_page_makes_is_refused(what: str, server: Server) -> None:
    request, status = REFUSED[what]
    answer = raw(server, request)
    # A connection that is cut while a huge request comes may lose the 400.
    assert answer[9:12] in ([str(status).encode()] if status else [b"400", b""])
    assert len(answer) < 2000
    assert httpx.get(f"{server.address}api/runs").status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost:1", "127.0.0.1", "[::1]:80", "127.1.2.3:99", "LOCALHOST"]
)
def test_names_of_this_machine_are_answered(host: str, server: Server) -> None:
    request = f"GET /api/runs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert raw(server, request.encode()).startswith(b"HTTP/1.1 200")


def test_other_machines_need_a_token(place: Path) -> None:
    for token in (None, "short", "0123456789abcde", "ü" * 20):
        with pytest.raises(ValueError, match=r"token .*: give"):
            check_token("0.0.0.0", token)
    with pytest.raises(ValueError, match="give --token new"):
        Server(place / "runs", host="0.0.0.0", port=0)


def test_with_a_token_nothing_is_told_without_it(place: Path) -> None:
    with serving(place / "runs", host="0.0.0.0", token="new") as server:
        at = f"http://127.0.0.1:{server.port}"
        token = server.token
        assert token is not None
        assert len(token) >= 32
        wrong = ("", "token=", "token=wrong", f"token={token[:-1]}", f"token={token}x")
        with httpx.Client() as client:
            for target in ("/", "/live", "/api/runs", "/api/stream?run=two.jsonl", "/static/a.css"):
                for given in wrong:
                    answer = client.get(f"{at}{target}{'&' if '?' in target else '?'}{given}")
                    assert answer.status_code == 401
                    assert "two.jsonl" not in answer.text
            for cookie in ("gaba_token=", f"gaba_token={token}", "gaba_token=\x80"):
                headers = [(b"cookie", cookie.encode("latin-1"))]
                assert client.get(f"{at}/live", headers=headers).status_code == 401
            answer = client.get(f"{at}/live?token={token}&run=a%26b")
            assert answer.status_code == 303
            assert answer.headers["location"] == "/live?run=a%26b"
            kept = answer.headers["set-cookie"]
            assert "HttpOnly" in kept
            assert "SameSite=strict" in kept
            assert token not in kept
            assert client.get(f"{at}/api/runs").json()["runs"]
        answer = httpx.get(f"{at}//evil.example/?token={token}")
        assert answer.headers["location"] == "/evil.example/"
        bearer = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{at}/api/runs", headers=bearer).status_code == 200


def test_a_port_that_is_taken_is_one_line(server: Server) -> None:
    with pytest.raises(OSError, match=rf"port {server.port} .*give another --port"):
        Server(port=server.port)


# --- slow and many clients -----------------------------------------------------------------------


def closed_within(client: socket.socket, seconds: float) -> bool:
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_who_never_asks_is_sent_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaba.web._patience.TO_ASK", 0.5)
    with serving(place / "runs") as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        for i, client in enumerate(slow):
            if i % 2:
                client.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert httpx.get(f"{server.address}api/runs").status_code == 200
        for client in slow:
            assert closed_within(client, 10)
            client.close()
        assert httpx.get(f"{server.address}api/runs").status_code == 200


def test_who_drips_a_request_is_sent_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaba.web._patience.TO_ASK", 0.5)
    with serving(place / "runs") as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        with client, pytest.raises((ConnectionError, TimeoutError)):
            drip(client, 200)


def drip(client: socket.socket, count: int) -> None:
    for _ in range(count):
        client.sendall(b"x")
        time.sleep(0.05)


def test_who_does_not_take_what_is_sent_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaba.web._patience.TO_TAKE", 0.5)
    names = tuple("abcdefghijkl")
    write(tmp_path / "history.jsonl", step_lines(2100, names, cosines=True), names)
    with serving(tmp_path) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(get("/api/stream?run=history.jsonl"))
        before = time.monotonic()
        while time.monotonic() - before < 15:
            append(tmp_path / "history.jsonl", step_lines(1, names, first=5000))
            time.sleep(0.3)
            try:
                client.send(b"\r\n")
            except OSError:
                break
        else:
            pytest.fail("a client that reads nothing is still served")
        client.close()
        assert httpx.get(f"{server.address}api/runs").status_code == 200


# --- the stream ----------------------------------------------------------------------------------


class Page:
    """What a page keeps of one run, in the way of its store.js."""

    def __init__(self) -> None:
        self.generation = ""
        self.stride = 0
        self.x: list[float] = []
        self.series: dict[str, np.ndarray] = {}
        self.last = ""
        self.told: dict[str, Any] = {}

    def take(self, event: dict[str, str]) -> None:
        if event.get("event") != "run":
            return
        self.last = event["id"]
        self.told = told = json.loads(event["data"])
        if told["generation"] != self.generation:
            self.generation, self.stride, self.x, self.series = told["generation"], 0, [], {}
        if "buckets" not in told:
            return
        sent = told["buckets"]
        if sent["stride"] != self.stride:
            assert sent["start"] == 0
            self.stride, self.x, self.series = sent["stride"], [], {}
        start, count = sent["start"], sent["count"]
        assert start <= len(self.x), "something was missed"
        new = np.frombuffer(base64.b64decode(sent["x"]), "<f8")
        values = np.frombuffer(base64.b64decode(sent["values"]), "<f4")
        values = values.reshape(sent["levels"], len(sent["names"]), count)
        known = len(self.x)
        self.x = [*self.x[:start], *new.tolist()]
        for name in {*self.series, *sent["names"]}:
            old = self.series.get(name, np.full((3, known), np.nan))[:, :start]
            fresh = np.full((3, count), np.nan, dtype=np.float32)
            if name in sent["names"]:
                fresh[:] = values[:, sent["names"].index(name)]
            self.series[name] = np.concatenate([old, fresh], axis=1)


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if "event" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def listen(address: str, run: str, page: Page, until: int) -> None:
    """Take events, from what the page has on, until it was told of so many steps."""
    headers = {"last-event-id": page.last} if page.last else {}
    timeout = httpx.Timeout(20)
    with httpx.stream("GET", f"{address}api/stream", params={"run": run}, headers=headers,
                      timeout=timeout) as answer:  # fmt: skip
        assert answer.headers["content-type"].startswith("text/event-stream")
        for event in events(answer.iter_lines()):
            page.take(event)
            if page.told and page.told["total"] >= until and page.told["state"] == "following":
                return


def assert_has_all(page: Page, path: Path) -> None:
    history = read(path)
    assert page.told["total"] == len(history)
    assert page.x == history.steps[:: page.stride].tolist()
    for name in ("losses", "norms", "multipliers", "weights", "contributions"):
        for k in range(len(history.tasks)):
            values = getattr(history, name)[:, k]
            for i in range(len(page.x)):
                part = values[i * page.stride : (i + 1) * page.stride]
                part = part[np.isfinite(part)].astype(np.float32)
                found = page.series[f"{name}/{k}"][:, i]
                if part.size:
                    assert found[0] == part.min()
                    assert found[2] == part.max()
                    assert part.min() <= found[1] <= part.max()
                else:
                    assert np.isnan(found).all()


def test_a_page_is_told_what_was_recorded_and_what_comes(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", step_lines(150, ("a", "b")), subset="somewhere")
    page = Page()
    with serving(tmp_path) as server:
        writer = threading.Timer(1.0, append, (path, step_lines(50, ("a", "b"), first=150)))
        writer.start()
        listen(server.address, "run.jsonl", page, until=200)
        writer.join()
        assert_has_all(page, path)
    assert page.told["meta"] == {"subset": "somewhere"}
    assert page.told["skipped"] == int((~read(path).finite).sum())
    np.testing.assert_allclose(page.told["last"]["weights"], read(path).weights[-1])


def test_a_page_that_comes_back_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaba.web._events.POINTS", 128)
    path = write(tmp_path / "run.jsonl", step_lines(60, ("a", "b")))
    page = Page()
    strides, sent = [], []
    with serving(tmp_path) as server:
        total = 60
        for more in (0, 1, 9, 40, 60, 3, 200):  # the last ones make the stride double
            append(path, step_lines(more, ("a", "b"), first=total))
            total += more
            listen(server.address, "run.jsonl", page, until=total)
            assert_has_all(page, path)
            strides.append(page.stride)
            sent.append(page.told["buckets"]["count"])
    assert strides == [1, 1, 1, 1, 2, 2, 4]
    assert sent[1] <= 2  # only what is new
    with serving(tmp_path) as server:  # a new server knows nothing of the old page
        append(path, step_lines(5, ("a", "b"), first=total))
        listen(server.address, "run.jsonl", page, until=total + 5)
        assert_has_all(page, path)


@pytest.mark.parametrize("last", ["x", "../..", "0.1.1", "deadbeef.9.1~a.1.1", "9" * 3000, ".-1.0"])
def test_a_strange_last_event_is_taken_for_none(last: str, server: Server, place: Path) -> None:
    page = Page()
    page.last = last
    listen(server.address, "one/history.jsonl", page, until=300)
    assert_has_all(page, place / "runs" / "one" / "history.jsonl")


def test_a_page_is_told_of_a_malformed_line(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", [*step_lines(5, ("a", "b")), "{oops}\n"])
    with (
        serving(tmp_path) as server,
        httpx.stream("GET", f"{server.address}api/stream?run=run.jsonl", timeout=20) as answer,
    ):
        told: dict[str, Any] = {}
        for event in events(answer.iter_lines()):
            if event["event"] == "run" and (told := json.loads(event["data"]))["state"] == "error":
                break
    assert told["error"].startswith("run.jsonl, line 7: not a step of the tasks ('a', 'b')")
    assert str(path.parent) not in told["error"]
    assert told["total"] == 5


def told_of(server: Server, run: str, until: set[str]) -> dict[str, Any]:
    """What a page is told once the run is in one of these states; all of it must be JSON."""

    def no_json(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    address = f"{server.address}api/stream?run={run}"
    with httpx.stream("GET", address, timeout=20) as answer:
        for event in events(answer.iter_lines()):
            told = json.loads(event["data"], parse_constant=no_json)
            if event["event"] == "run" and told["state"] in until:
                return told
    pytest.fail(f"the stream of {run} ended")


def test_a_page_is_told_grades_and_the_median_cosines(tmp_path: Path) -> None:
    tasks = ("a", "b", "c")
    lines = step_lines(80, tasks, cosines=True)
    path = write(tmp_path / "run.jsonl", lines, tasks)
    write(tmp_path / "without.jsonl", step_lines(80, tasks), tasks)
    told: dict[str, dict[str, Any]] = {}
    with serving(tmp_path) as server:
        for run in ("run.jsonl", "without.jsonl"):
            address = f"{server.address}api/stream?run={run}"
            with httpx.stream("GET", address, timeout=20) as answer:
                for event in events(answer.iter_lines()):
                    if event["event"] == "run":
                        told[run] = json.loads(event["data"])
                        if told[run]["diagnosis"]:
                            break
    found, expected = told["run.jsonl"]["diagnosis"], gaba.diagnose(read(path))
    assert found["grade"] == expected.grade
    assert [f["grade"] for f in found["evidence"]] == [f.grade for f in expected.evidence]
    assert len({f["grade"] for f in found["evidence"]}) > 1
    rows = [line for line in map(json.loads, lines) if line["finite"] and "cosines" in line]
    cosines = told["run.jsonl"]["cosines"]
    assert cosines["steps"] == len(rows)
    pair = [row["cosines"][0][2] for row in rows if row["cosines"][0][2] is not None]
    assert cosines["median"][0][2] == cosines["median"][2][0] == np.median(pair)
    assert told["without.jsonl"]["cosines"] is None


def test_a_record_that_is_unreadable_stops_no_other(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", step_lines(8, ("a", "b")))
    bad = step_lines(3, ("a", "b"))
    bad.append(bad[-1].replace('"step": 2', f'"step": {10**400}'))
    write(tmp_path / "bad.jsonl", bad)
    with serving(tmp_path) as server:
        told = told_of(server, "bad.jsonl", {"error", "following"})
        assert told["error"].startswith("bad.jsonl, line 5: not a step of the tasks ('a', 'b')")
        assert told["total"] == 3
        assert told_of(server, "good.jsonl", {"following"})["total"] == 8
        append(good, step_lines(2, ("a", "b"), first=8))
        page = Page()
        listen(server.address, "good.jsonl", page, until=10)
        assert_has_all(page, good)


def test_a_fault_of_ours_stops_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one thread survives what nobody thought of, and says it of the run that it met it in."""
    write(tmp_path / "good.jsonl", step_lines(8, ("a", "b")))
    write(tmp_path / "odd.jsonl", step_lines(8, ("odd", "b")), ("odd", "b"))

    def diagnose(history: gaba.History) -> Any:
        return gaba.diagnose(history) if "odd" not in history.tasks else 1 // 0

    monkeypatch.setattr("gaba.web.follow.diagnose", diagnose)
    with serving(tmp_path) as server:
        told = told_of(server, "odd.jsonl", {"error"})
        assert told["error"].startswith("odd.jsonl: cannot be followed (ZeroDivisionError: ")
        assert told_of(server, "good.jsonl", {"following"})["total"] == 8


NOT_JSON = {
    "NaN": ("NaN", None),
    "Infinity": ("-Infinity", None),
    "too large": ("1e999", None),
    "deep": ('{"a": [1, {"b": [NaN, Infinity, -1e999]}]}', ...),
    "very deep": (500 * "[" + "NaN" + 500 * "]", ...),
    "a huge integer": (str(10**400), 10**400),
    "half a character": ('"\\ud800"', "\ud800"),
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_whatever_the_header_says_the_page_is_told_json(what: str, tmp_path: Path) -> None:
    value, expected = NOT_JSON[what]
    begun = f'{{"gaba": "1", "tasks": ["a", "b"], "meta": {{"lr": {value}, "seed": 3}}}}\n'
    path = tmp_path / "run.jsonl"
    path.write_text(begun + "".join(step_lines(4, ("a", "b"))), encoding="utf-8")
    with serving(tmp_path) as server:
        told = told_of(server, "run.jsonl", {"following", "error"})
    assert told["state"] == "following"
    assert told["total"] == 4
    assert told["meta"]["seed"] == 3
    assert told["meta"].get("lr", ...) == expected


def test_new_runs_are_told_and_several_followed_at_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", step_lines(10, ("a", "b")))
    two = write(tmp_path / "two.jsonl", step_lines(20, ("x",)), ("x",))
    pages = {"one.jsonl": Page(), "two.jsonl": Page()}
    listed: list[list[str]] = []
    params = {"run": list(pages)}
    with (
        serving(tmp_path) as server,
        httpx.stream("GET", f"{server.address}api/stream", params=params, timeout=20) as answer,
    ):
        for event in events(answer.iter_lines()):
            if event["event"] == "runs":
                listed.append(json.loads(event["data"]))
                write(tmp_path / "new" / "history.jsonl", [])
            else:
                pages[json.loads(event["data"])["run"]].take(event)
            if len(listed) == 2:
                break
    assert listed == [["one.jsonl", "two.jsonl"], ["new/history.jsonl", "one.jsonl", "two.jsonl"]]
    assert_has_all(pages["one.jsonl"], one)
    assert_has_all(pages["two.jsonl"], two)


def test_two_hundred_streams_at_the_same_time(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", step_lines(50, ("a", "b")))

    async def one(port: int, first: asyncio.Event, count: list[int]) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        writer.write(get("/api/stream?run=run.jsonl"))
        total = 0
        while total < 60:
            line = await reader.readline()
            if line.startswith(b'data: {"run"'):
                total = json.loads(line[6:])["total"]
                if total == 50:
                    count[0] += 1
                    if count[0] >= 200:
                        first.set()
        writer.close()
        return total

    async def all_of_them(port: int) -> list[int]:
        first, count = asyncio.Event(), [0]
        tasks = [asyncio.create_task(one(port, first, count)) for _ in range(200)]
        await asyncio.wait_for(first.wait(), 60)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/api/runs", timeout=20)
            assert answer.status_code == 200
        append(path, step_lines(10, ("a", "b"), first=50))
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    with serving(tmp_path) as server:
        assert asyncio.run(all_of_them(server.port)) == [60] * 200
