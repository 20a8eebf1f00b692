"""``gaba report``: what runs did, as a page to send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from gaba.web.follow import Follower

if TYPE_CHECKING:
    import gaba
    from gaba.record.report import Run


def write(paths: Sequence[Path], out: Path, kind: Literal["html", "md"]) -> str:
    """Write the report of the run folders or records ``paths``; say where it is.

    Raises:
        ImportError: the extra is not installed.
        FileNotFoundError: there is no such run.
        ValueError: a file is no record, or holds no steps.
    """
    from gaba.record import report

    names = _names(paths)
    runs = [_read(path, name) for path, name in zip(paths, names, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        text, beside = report.html(runs), ""
    else:
        pictures = out.with_name(f"{out.stem}-pictures")
        text, beside = report.markdown(runs, pictures), f", its pictures are in {pictures}"
    partial = out.with_name(out.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)
    return f"the report is in {out}{beside}"


def _read(path: Path, name: str) -> Run:
    from gaba.record.report import Run

    follower = Follower(record_of(path), window=None)
    while follower.advance():
        pass
    if follower.error:
        raise ValueError(follower.error)
    meta = follower.header.meta if follower.header else {}
    return Run(name, cast("gaba.History", follower.latest), meta)


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders, or all of the paths where those are not different."""
    short = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def record_of(path: Path) -> Path:
    """The record of a run folder, or the record itself.

    Raises:
        FileNotFoundError: there is none.
    """
    record = path / "history.jsonl" if path.is_dir() else path
    if not record.is_file():
        raise FileNotFoundError(f"no record of a run in {path}: give a folder with history.jsonl")
    return record
