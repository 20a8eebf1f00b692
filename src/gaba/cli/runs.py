"""Recorded runs: where the record is, what the run is called, its diagnosis, and a page to send."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gaba
from gaba.record import jsonl

SIMULATED = "simulated data (a fleet made up by gaba, not NASA's)"


def record_of(path: Path) -> Path:
    """The record in a run folder, or the record itself.

    Raises:
        FileNotFoundError: There is none.
    """
    record = path / "history.jsonl" if path.is_dir() else path
    if not record.is_file():
        raise FileNotFoundError(f"no record of a run in {path}: give a folder with history.jsonl")
    return record


def interrupted(folder: str | Path) -> KeyboardInterrupt:
    """What Ctrl-C becomes: its message is the command that resumes the run in ``folder``."""
    again = f"gaba train turbofan --resume {shlex.quote(str(folder))}"
    return KeyboardInterrupt(f"interrupted; to resume, run: {again}")


def read(path: Path) -> tuple[gaba.History, dict[str, Any]]:
    """The history of the run in ``path``, and its settings.

    Raises:
        FileNotFoundError: There is no record.
        ValueError: The file is no record.
    """
    record = record_of(path)
    lines = jsonl.whole_lines(record) or [b""]
    return gaba.History.read(record), jsonl.header(lines[0], record).meta


def title(run: Mapping[str, Any]) -> str:
    """The data, method, size and seed of a run, as far as they are known.

    >>> title({"subset": "FD001", "method": "paper", "sample_weights": True, "seed": 0})
    'FD001 · paper with sample weights · seed 0'
    """
    parts = [SIMULATED if run.get("simulated") else run.get("subset"), method_of(run)]
    parts += [run.get("size"), f"seed {run['seed']}" if "seed" in run else None]
    return " · ".join(str(part) for part in parts if part)


def method_of(run: Mapping[str, Any]) -> str:
    """The method of a run, with its sample weights."""
    return f"{run.get('method', '')}{' with sample weights' if run.get('sample_weights') else ''}"


def explain(run: Path) -> str:
    """The diagnosis of a run, under a line with its settings.

    Raises:
        FileNotFoundError: There is no record.
        ValueError: The file is no record, or holds no steps.
    """
    history, meta = read(run)
    path = record_of(run)
    if not len(history):
        raise ValueError(f"{path} holds no steps yet: let the run go on for a while")
    heading = title(meta)
    return f"{f'{heading} ({path})' if heading else path}\n{gaba.diagnose(history)}"


def report(paths: Sequence[Path], out: Path, kind: Literal["html", "md"]) -> str:
    """Write the report of runs, and say where it is.

    Raises:
        ImportError: The extra is not installed.
        FileNotFoundError: There is no such run.
        ValueError: A file is no record, or holds no steps.
    """
    from gaba.record import report as pages

    names = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    runs = [pages.Run(name, *read(path)) for name, path in zip(names, paths, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        text, beside = pages.html(runs), ""
    else:
        pictures = out.with_name(f"{out.stem}-pictures")
        text, beside = pages.markdown(runs, pictures), f", its pictures are in {pictures}"
    partial = out.with_name(out.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)
    return f"the report is in {out}{beside}"
