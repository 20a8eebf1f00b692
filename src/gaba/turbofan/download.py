"""Fetches the public C-MAPSS archive, and lets nothing through that is not the published data."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

DEFAULT_URL = "https://data.nasa.gov/docs/legacy/CMAPSSData.zip"
"""Where NASA publishes the archive."""

ENVIRONMENT = "GABA_CMAPSS_URL"
"""The environment variable that names another address."""

TIMEOUT = 60.0
"""Seconds that the server may stay silent."""

MOST_BYTES = 256 * 2**20
"""The most that is read of an archive or of a file in it; the real archive has about 12 MiB."""

PUBLISHED = {
    "train_FD001.txt": (20631, "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8"),
    "train_FD002.txt": (53759, "dac6c4dbc4e7c1bdeb5747da3d313d05c395bb99801b44a002b26a2ba13d788f"),
    "train_FD003.txt": (24720, "2abbe9968cc5e8eb091980f51b20f62bb4127336d3482cb52071d53bf23329e2"),
    "train_FD004.txt": (61249, "27ef6160b6a1dcb2613a88de9c239f763b223f02cdc41dc5cdedc5dc189b6218"),
    "test_FD001.txt": (13096, "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851"),
    "test_FD002.txt": (33991, "de7b5bf7e998a985c378488480528b7c02cff1406a46740def362dda8d9b4e02"),
    "test_FD003.txt": (16596, "299babd63c8d987cef079c4a425429f33b3a34797d803bbe2ad48c29dbd0d790"),
    "test_FD004.txt": (41214, "1dc675fff0624bac10786927c6715b37d1297657137400d2b1a3138d777a3ba5"),
    "RUL_FD001.txt": (100, "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca"),
    "RUL_FD002.txt": (259, "c851dd96a6ea6998d3c4a8f834d3c8013aa90e93a6ed950dc826ad0655b2906b"),
    "RUL_FD003.txt": (100, "df1e0566306b174a2de41c67a3e7a51877889598b78643fc3e5685259091b7cb"),
    "RUL_FD004.txt": (248, "196b836b85a95ac7fdbbf29c5fdf1657382eafa445644d114ffaaf50dc2975e1"),
}
"""The lines and the sha256 of each file as published."""


@final
class DownloadError(OSError):
    """The data could not be fetched, or are not the published ones; nothing was written."""


def fetch(
    dest: str | Path, url: str | None = None, subsets: Iterable[str] | None = None
) -> list[Path]:
    """Downloads the C-MAPSS text files into ``dest`` and verifies the lines and sha256 of each.

    All wanted files are verified in memory before the first is written, and each appears under its
    name only when it is whole. Files that are already there as published are kept, and if all are,
    nothing is downloaded; a file of the same name with another content is replaced.

    Args:
        dest: The folder; made if absent.
        url: A zip with the files, or with a zip that holds them; any address that urllib opens. If
            None, the environment variable ``GABA_CMAPSS_URL``, or else :data:`DEFAULT_URL`.
        subsets: Which of ``"FD001"`` to ``"FD004"``; all if None.

    Returns:
        The paths of the wanted files.

    Raises:
        ValueError: An unknown subset.
        DownloadError: No network, an HTTP error, an incomplete transfer, no zip, a file missing in
            it or different from the published one, or a folder that cannot be written.

    >>> fetch("folder", subsets=["FD005"])
    Traceback (most recent call last):
        ...
    ValueError: subsets: must be among FD001, FD002, FD003, FD004, got 'FD005'
    """
    folder = Path(dest)
    names = _names(subsets)
    missing = [name for name in names if not _is_published(folder / name)]
    if missing:
        url = url or os.environ.get(ENVIRONMENT) or DEFAULT_URL
        files = _extract(_download(url), missing, url)
        for name, content in files.items():
            _verify(name, content, url)
        _write(files, folder)
    return [folder / name for name in names]


def _names(subsets: Iterable[str] | None) -> list[str]:
    known = list(dict.fromkeys(name[-9:-4] for name in PUBLISHED))
    wanted = known if subsets is None else list(subsets)
    for subset in wanted:
        if subset not in known:
            raise ValueError(f"subsets: must be among {', '.join(known)}, got {subset!r}")
    return [name for name in PUBLISHED if name[-9:-4] in wanted]


def _is_published(path: Path) -> bool:
    if not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == PUBLISHED[path.name][1]


def _download(url: str) -> bytes:
    try:
        with urlopen(Request(url, headers={"User-Agent": "gaba"}), timeout=TIMEOUT) as response:
            content = response.read(MOST_BYTES + 1)
            announced = response.headers.get("Content-Length", "")
    except HTTPError as error:
        with error:
            raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from None
    except URLError as error:
        raise DownloadError(f"{url}: cannot be reached: {_one_line(error.reason)}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"{url}: the transfer failed: {_one_line(error)}") from None
    if len(content) > MOST_BYTES:
        raise DownloadError(f"{url}: more than {MOST_BYTES} bytes; this is not the archive")
    if announced.isdecimal() and len(content) != int(announced):
        raise DownloadError(
            f"{url}: the transfer is incomplete, {len(content)} of {announced} bytes; try again"
        )
    return content


def _extract(archive: bytes, names: list[str], url: str) -> dict[str, bytes]:
    """The files called ``names``, wherever they lie in the zip or in a zip in it."""
    files: dict[str, bytes] = {}
    try:
        for name, content in _members(archive, set(names)):
            files.setdefault(name, content)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DownloadError(f"{url}: not a readable zip: {_one_line(error)}") from None
    if absent := [name for name in names if name not in files]:
        raise DownloadError(f"{url}: the archive lacks {', '.join(absent)}")
    return {name: files[name] for name in names}


def _members(archive: bytes, names: set[str], depth: int = 2) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for info in opened.infolist():
            name = info.filename.rpartition("/")[2]
            nested = depth > 1 and name.lower().endswith(".zip")
            if not (nested or name in names):
                continue
            if info.file_size > MOST_BYTES:
                raise zipfile.BadZipFile(f"{name} has more than {MOST_BYTES} bytes")
            content = opened.read(info)
            if nested:
                yield from _members(content, names, depth - 1)
            else:
                yield name, content


def _verify(name: str, content: bytes, url: str) -> None:
    lines, digest = PUBLISHED[name]
    if (found := content.count(b"\n")) != lines:
        raise DownloadError(f"{url}: {name} must have {lines} lines, got {found}")
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise DownloadError(f"{url}: {name} must have sha256 {digest}, got {found}")


def _write(files: dict[str, bytes], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            for name, content in files.items():
                (Path(partial) / name).write_bytes(content)
            for name in files:
                os.replace(Path(partial) / name, folder / name)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written: {_one_line(error)}") from None


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
