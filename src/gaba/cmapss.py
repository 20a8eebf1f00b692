"""Downloads the public C-MAPSS archive and verifies every file of it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gaba.extras import needs

with needs("gaba.turbofan needs", "turbofan", "pooch"):
    import pooch
    from requests import RequestException, Response  # requests comes with pooch
    from requests.exceptions import ChunkedEncodingError

pooch.get_logger().setLevel("WARNING")  # it reports every download

__all__ = ["fetch"]

DEFAULT_URL = "https://data.nasa.gov/docs/legacy/CMAPSSData.zip"
"""Where NASA publishes the archive."""

ENVIRONMENT = "GABA_CMAPSS_URL"
"""The environment variable that names another address."""

TIMEOUT = 60.0
"""Seconds that the server may stay silent."""

DEADLINE = 1800.0
"""Seconds that the whole download may take, all tries together; a server that drips has no more."""

RETRIES = 2
"""A transfer that fails is tried again this often."""

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What the system says where there is no room for a file."""

MOST_BYTES = 256 * 2**20
"""The largest archive, and the largest file in it, that is read; the real archive has 12 MiB."""

PUBLISHED = {
    "train_FD001.txt": "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8",
    "train_FD002.txt": "dac6c4dbc4e7c1bdeb5747da3d313d05c395bb99801b44a002b26a2ba13d788f",
    "train_FD003.txt": "2abbe9968cc5e8eb091980f51b20f62bb4127336d3482cb52071d53bf23329e2",
    "train_FD004.txt": "27ef6160b6a1dcb2613a88de9c239f763b223f02cdc41dc5cdedc5dc189b6218",
    "test_FD001.txt": "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851",
    "test_FD002.txt": "de7b5bf7e998a985c378488480528b7c02cff1406a46740def362dda8d9b4e02",
    "test_FD003.txt": "299babd63c8d987cef079c4a425429f33b3a34797d803bbe2ad48c29dbd0d790",
    "test_FD004.txt": "1dc675fff0624bac10786927c6715b37d1297657137400d2b1a3138d777a3ba5",
    "RUL_FD001.txt": "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca",
    "RUL_FD002.txt": "c851dd96a6ea6998d3c4a8f834d3c8013aa90e93a6ed950dc826ad0655b2906b",
    "RUL_FD003.txt": "df1e0566306b174a2de41c67a3e7a51877889598b78643fc3e5685259091b7cb",
    "RUL_FD004.txt": "196b836b85a95ac7fdbbf29c5fdf1657382eafa445644d114ffaaf50dc2975e1",
}
"""The sha256 of each file as published."""


@final
class DownloadError(OSError):
    """The data could not be downloaded, or are not the published ones; nothing was written."""


def fetch(
    dest: str | Path,
    url: str | None = None,
    subsets: Iterable[str] | None = None,
    progressbar: Any = None,
) -> list[Path]:
    """Download the C-MAPSS text files into ``dest`` and verify the sha256 of each.

    Files that are there as published are kept; if all are, nothing is downloaded. The others are
    written or replaced after all of them have been verified.

    Args:
        dest: The folder; made if absent.
        url: A zip with the files, or with a zip that holds them: http(s) or file. By default the
            environment variable ``GABA_CMAPSS_URL``, or else :data:`DEFAULT_URL`.
        subsets: Which of ``"FD001"`` to ``"FD004"``; all by default.
        progressbar: Shows the download: an object with ``total`` (bytes), ``update(n)``,
            ``reset()`` and ``close()``, such as a bar of tqdm.

    Returns:
        The paths of the files asked for.

    Raises:
        ValueError: An unknown subset.
        DownloadError: No network, an HTTP error, a transfer that is incomplete or takes longer
            than half an hour, no zip, a file that is missing in it or differs from the published
            one, or a folder that cannot be written.

    >>> fetch("folder", subsets=["FD005"])
    Traceback (most recent call last):
        ...
    ValueError: subsets must be among FD001, FD002, FD003, FD004, found 'FD005'
    """
    folder = Path(dest)
    names = _names(subsets)
    missing = [name for name in names if not _is_published(folder / name)]
    if missing:
        url = url or os.environ.get(ENVIRONMENT) or DEFAULT_URL
        with tempfile.TemporaryDirectory(prefix="gaba-", ignore_cleanup_errors=True) as scratch:
            files = _extract(_download(url, Path(scratch), progressbar), missing, url)
            for path in files:
                if not _is_published(path):
                    wanted, found = PUBLISHED[path.name], pooch.file_hash(str(path))
                    raise DownloadError(
                        f"{url}: {path.name} must have sha256 {wanted}, found {found}"
                    )
            _move(files, folder)
    return [folder / name for name in names]


def _names(subsets: Iterable[str] | None) -> list[str]:
    known = list(dict.fromkeys(name[-9:-4] for name in PUBLISHED))
    wanted = known if subsets is None else list(subsets)
    for subset in wanted:
        if subset not in known:
            raise ValueError(f"subsets must be among {', '.join(known)}, found {subset!r}")
    return [name for name in PUBLISHED if name[-9:-4] in wanted]


def _is_published(path: Path) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == PUBLISHED[path.name]


def _download(url: str, scratch: Path, progressbar: Any) -> Path:
    """The archive in ``scratch``."""
    answers: list[Response] = []  # pooch leaves one open if its transfer fails

    def look(answer: Response, **_: object) -> None:
        answers.append(answer)
        if answer.status_code >= 400:  # trying again would not help
            raise DownloadError(f"{url}: the server says {answer.status_code} {answer.reason}")
        if int(answer.headers.get("Content-Length", 0)) > MOST_BYTES:
            raise DownloadError(f"{url}: more than {MOST_BYTES} bytes: not the archive")

    http = pooch.HTTPDownloader(progressbar, 2**16, timeout=TIMEOUT, hooks={"response": look})
    source = pooch.create(scratch, "", registry={"archive.zip": None}, urls={"archive.zip": url})
    source.retry_if_failed = RETRIES
    transfer: Any = _copy if urlsplit(url).scheme == "file" else http

    def fetched() -> str:
        try:
            return source.fetch("archive.zip", downloader=transfer)
        finally:
            for answer in answers:  # by the thread that reads it: another one would wait for it
                answer.close()

    try:
        return Path(_in_time(fetched, url))
    except DownloadError:
        raise
    except ChunkedEncodingError as error:
        raise DownloadError(f"{url}: the transfer broke off: {_one_line(error)}") from None
    except (RequestException, OSError) as error:
        if error.errno in FULL:
            raise DownloadError(f"{scratch}: cannot be written: {_one_line(error)}") from None
        cause = _one_line(getattr(next(iter(error.args), None), "reason", error))
        raise DownloadError(
            f"{url}: cannot be reached: {cause.partition('): ')[2] or cause}; without a network, "
            "get the archive another way and give its address as file:///PATH"
        ) from None


def _in_time(transfer: Callable[[], str], url: str) -> str:
    """What ``transfer`` returns, if it is done before the deadline.

    Each byte restarts a timeout, so a thread transfers and is left behind if it is late.
    """
    done: list[str] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(transfer())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="gaba-download", daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if failed:
        raise failed[0]
    if not done:
        raise DownloadError(
            f"{url}: not there after {DEADLINE:g} seconds, so it was given up: try again later, "
            "or get the archive another way and give its address as file:///PATH"
        )
    return done[0]


def _copy(url: str, output_file: str, _: object) -> None:
    shutil.copyfile(url2pathname(urlsplit(url).path), output_file)


def _extract(archive: Path, names: list[str], url: str) -> list[Path]:
    """The files called ``names``, written beside the archive, wherever they lie in it."""
    found: dict[str, Path] = {}
    try:
        for name, member in _members(archive, names, url):
            found[name] = archive.with_name(name)
            found[name].write_bytes(member.read())
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DownloadError(f"{url}: not a readable zip: {_one_line(error)}") from None
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        folder = archive.parent
        raise DownloadError(f"{folder}: cannot be written: {_one_line(error)}") from None
    if absent := [name for name in names if name not in found]:
        raise DownloadError(f"{url}: the archive lacks {', '.join(absent)}")
    return [found[name] for name in names]


def _members(
    archive: Path | IO[bytes], names: list[str], url: str, depth: int = 2
) -> Iterator[tuple[str, IO[bytes]]]:
    """The members called ``names`` of a zip, and of the zips in it."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename.rpartition("/")[2]
            nested = depth > 1 and name.lower().endswith(".zip")
            if (nested or name in names) and info.file_size > MOST_BYTES:
                raise DownloadError(f"{url}: {name} has more than {MOST_BYTES} bytes")
            if nested:
                with opened.open(info) as member:
                    yield from _members(member, names, url, depth - 1)
            elif name in names:
                with opened.open(info) as member:
                    yield name, member


def _move(files: list[Path], folder: Path) -> None:
    """Copy the files beside where they go, then put each into its place whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            copies = [Path(shutil.copy(path, partial)) for path in files]
            for copy in copies:
                os.replace(copy, folder / copy.name)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written: {_one_line(error)}") from None


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
