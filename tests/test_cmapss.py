from __future__ import annotations

import hashlib
import io
import lzma
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gaba.cmapss import PUBLISHED, DownloadError, fetch
from gaba.turbofan.data import DataNotFoundError, find_data_dir, load
from gaba.turbofan.fleet import SUBSETS

Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on this machine; `replies` says what it does at each path."""

    def __init__(self) -> None:
        replies: dict[str, Reply] = {}
        requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                replies.get(self.path, lambda handler: handler.send_error(404))(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.replies, self.requests = replies, requests
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}{path}"

    def serve(self, content: bytes, *, announced: int | None = None) -> str:
        """The address of ``content``; ``announced`` is the length that the header claims."""

        def reply(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(announced or len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        self.replies["/archive.zip"] = reply
        return self.url("/archive.zip")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaba.cmapss.RETRIES", 0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    try:
        folder = find_data_dir()
    except DataNotFoundError as error:
        pytest.skip(f"needs the real data: {error}")
    files = {}
    for name in PUBLISHED:
        packed = folder / f"{name}.xz"
        files[name] = (
            lzma.decompress(packed.read_bytes())
            if packed.exists()
            else (folder / name).read_bytes()
        )
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def of_subset(files: dict[str, bytes], subset: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if subset in name}


def assert_refused(dest: Path, url: str, says: str) -> None:
    """FD001 is refused in one line, and ``dest`` is as it was."""
    before = {p.name: p.read_bytes() for p in dest.rglob("*")} if dest.exists() else None
    with pytest.raises(DownloadError) as caught:
        fetch(dest, url, ["FD001"])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {p.name: p.read_bytes() for p in dest.rglob("*")} if dest.exists() else None
    assert after == before


def test_the_table_is_that_of_the_published_files(originals: dict[str, bytes]) -> None:
    found = {name: hashlib.sha256(content).hexdigest() for name, content in originals.items()}
    assert found == PUBLISHED
    assert {name[-9:-4] for name in PUBLISHED} == set(SUBSETS)


def test_all_files_arrive_and_load(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    url = server.serve(zipped({**originals, "readme.txt": b"hello", "Damage.pdf": b"%PDF"}))
    dest = tmp_path / "new" / "folder"
    paths = fetch(dest, url)
    assert sorted(paths) == sorted(dest / name for name in PUBLISHED)
    assert sorted(dest.iterdir()) == sorted(paths)
    assert all(path.read_bytes() == originals[path.name] for path in paths)
    assert load("FD001", dest).train.shape == (20631, 26)
    assert fetch(dest, url) == paths
    assert len(server.requests) == 1  # what is there as published is not fetched again


def test_a_zip_in_a_zip_and_folders_in_it_are_looked_through(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    inner = zipped({f"CMAPSS/{k}": v for k, v in of_subset(originals, "FD001").items()})
    url = server.serve(zipped({"6. Turbofan/CMAPSSData.zip": inner, "6. Turbofan/x.txt": b""}))
    paths = fetch(tmp_path, url, subsets=["FD001"])
    assert [p.name for p in paths] == ["train_FD001.txt", "test_FD001.txt", "RUL_FD001.txt"]
    assert all(path.read_bytes() == originals[path.name] for path in paths)


def test_the_address_may_come_from_the_environment(
    server: Server, originals: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve(zipped(of_subset(originals, "FD003")))
    monkeypatch.setenv("GABA_CMAPSS_URL", url)
    assert len(fetch(tmp_path, subsets=["FD003"])) == 3


def test_a_damaged_file_is_replaced_and_the_rest_kept(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    url = server.serve(zipped(of_subset(originals, "FD001")))
    train, test, _ = fetch(tmp_path, url, ["FD001"])
    train.write_bytes(train.read_bytes()[:1000])
    untouched = os.stat(test).st_ino
    fetch(tmp_path, url, ["FD001"])
    assert train.read_bytes() == originals["train_FD001.txt"]
    assert os.stat(test).st_ino == untouched


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_transfer_that_breaks_off_leaves_nothing(
    server: Server, originals: dict[str, bytes], tmp_path: Path, kept: float
) -> None:
    archive = zipped(of_subset(originals, "FD001"))
    url = server.serve(archive[: int(kept * len(archive))], announced=len(archive))
    assert_refused(tmp_path / "data", url, "transfer")


def test_a_broken_transfer_is_tried_again(
    server: Server, originals: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaba.cmapss.RETRIES", 1)
    archive = zipped(of_subset(originals, "FD001"))
    url = server.serve(archive[:1000], announced=len(archive))
    broken = server.replies["/archive.zip"]

    def first_broken(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        server.serve(archive)

    server.replies["/archive.zip"] = first_broken
    assert len(fetch(tmp_path, url, ["FD001"])) == 3
    assert len(server.requests) == 2


def test_an_archive_on_this_machine_needs_no_server(
    originals: dict[str, bytes], tmp_path: Path
) -> None:
    archive = tmp_path / "an archive.zip"
    archive.write_bytes(zipped(of_subset(originals, "FD001")))
    paths = fetch(tmp_path / "data", archive.as_uri(), ["FD001"])
    assert all(path.read_bytes() == originals[path.name] for path in paths)


def test_the_progress_reaches_the_size_of_the_archive(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    class Bar:
        total = now = 0
        closed = False

        def update(self, n: int) -> None:
            self.now += n

        def reset(self) -> None:
            self.now = 0

        def close(self) -> None:
            self.closed = True

    bar, archive = Bar(), zipped(of_subset(originals, "FD001"))
    fetch(tmp_path, server.serve(archive), ["FD001"], bar)
    assert bar.closed
    assert bar.now == bar.total == len(archive)


def test_a_truncated_archive_that_claims_to_be_whole_is_refused(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    archive = zipped(of_subset(originals, "FD001"))
    assert_refused(tmp_path / "data", server.serve(archive[:-100]), "not a readable zip")


@pytest.mark.parametrize("name", ["train_FD001.txt", "test_FD001.txt", "RUL_FD001.txt"])
def test_one_wrong_byte_is_found_and_what_was_there_stays(
    server: Server, originals: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    files = of_subset(originals, "FD001")
    middle = len(files[name]) // 2
    wrong = bytes([files[name][middle] ^ 1])
    files[name] = files[name][:middle] + wrong + files[name][middle + 1 :]
    (tmp_path / "train_FD001.txt").write_bytes(b"mine")
    assert_refused(
        tmp_path, server.serve(zipped(files)), f"{name} must have sha256 {PUBLISHED[name]}, found "
    )


def test_missing_lines_and_missing_files_are_named(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    files = of_subset(originals, "FD001")
    files["RUL_FD001.txt"] = b"".join(files["RUL_FD001.txt"].splitlines(keepends=True)[:-1])
    url = server.serve(zipped(files))
    assert_refused(tmp_path / "data", url, "RUL_FD001.txt must have sha256")
    del files["RUL_FD001.txt"], files["test_FD001.txt"]
    url = server.serve(zipped(files))
    assert_refused(tmp_path / "data", url, "lacks test_FD001.txt, RUL_FD001.txt")


def test_a_damaged_member_is_refused(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    archive = bytearray(zipped(of_subset(originals, "FD001")))
    archive[1000:1100] = bytes(100)
    assert_refused(tmp_path / "data", server.serve(bytes(archive)), "not a readable zip")


@pytest.mark.parametrize("most", [1000, 1_000_000])
def test_more_than_the_real_archive_could_hold_is_refused(
    server: Server,
    originals: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr("gaba.cmapss.MOST_BYTES", most)  # archive: 0.9 MB, a file: 3.5 MB
    url = server.serve(zipped(of_subset(originals, "FD001")))
    assert_refused(tmp_path / "data", url, f"more than {most} bytes")


def test_a_server_that_drips_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte restarts a timeout; the deadline is for all of it."""
    monkeypatch.setattr("gaba.cmapss.DEADLINE", 0.3)
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not over.wait(0.01):
            try:
                handler.wfile.write(b".")
            except OSError:
                return

    server.replies["/archive.zip"] = drip
    try:
        assert_refused(tmp_path / "data", server.url("/archive.zip"), "not there after 0.3 seconds")
    finally:
        over.set()


@pytest.mark.parametrize("room", [1000, 1 << 21], ids=["for no archive", "for no file"])
def test_a_full_disk_is_told_and_what_was_there_stays(
    originals: dict[str, bytes], tmp_path: Path, room: int
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(of_subset(originals, "FD001")))
    (tmp_path / "train_FD001.txt").write_bytes(b"mine")
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # 0.9 MB, and a file of 3.5 MB
    try:
        with pytest.raises(DownloadError, match=r"gaba-\w+: cannot be written: .*large"):
            fetch(tmp_path, archive.as_uri(), ["FD001"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "train_FD001.txt").read_bytes() == b"mine"
    assert not (tmp_path / "test_FD001.txt").exists()


def test_what_is_no_zip_is_refused(server: Server, tmp_path: Path) -> None:
    url = server.serve(b"<html>moved</html>")
    assert_refused(tmp_path / "data", url, "not a readable zip")


def test_an_http_error_is_told(server: Server, tmp_path: Path) -> None:
    assert_refused(tmp_path / "data", server.url("/elsewhere.zip"), "the server says 404")


def test_a_server_that_is_not_there_is_told(tmp_path: Path, server: Server) -> None:
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/archive.zip"
        assert_refused(tmp_path / "data", url, "cannot be reached")


@pytest.mark.parametrize("url", ["nonsense", "gopher://127.0.0.1/x.zip"])
def test_what_is_no_address_is_told(tmp_path: Path, url: str) -> None:
    assert_refused(tmp_path / "data", url, url)


def test_a_server_that_hangs_up_is_told(server: Server, tmp_path: Path) -> None:
    server.replies["/archive.zip"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    assert_refused(tmp_path / "data", server.url("/archive.zip"), "archive.zip: ")


def test_a_folder_that_is_a_file_is_told(
    server: Server, originals: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    url = server.serve(zipped(of_subset(originals, "FD001")))
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(tmp_path / "file", url, ["FD001"])
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_subset_is_refused_before_anything_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="FD001, FD002, FD003, FD004, found 'FD009'"):
        fetch(tmp_path, server.url("/archive.zip"), ["FD001", "FD009"])
    assert not server.requests
