"""The report of a benchmark: tables with intervals, tests, pictures, and what they allow to say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gaba.bench.problem import Problem
from gaba.bench.report._evidence import Evidence
from gaba.bench.report._page import page_of
from gaba.bench.report._runs import blocks_of
from gaba.bench.report._views import time_ratio as time_ratio
from gaba.bench.store import Store

__all__ = ["read", "write"]


def write(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: Literal["html", "md"] = "html",
    *,
    problems: Mapping[str, Problem] | None = None,
    data_dir: str | Path | None = None,
) -> Path:
    """Write the report of all runs in a store.

    The same store gives the same report, byte for byte, with the same versions.

    Args:
        store: the file of results; it is only read. Those of 0.1.0 work as well.
        out: the file to write; its folder is made. Pictures of Markdown go into a folder beside
            it: ``report-pictures`` for ``report.md``.
        format: ``"html"``, one file that needs no other, or ``"md"``.
        problems: your own problems by name, where the results do not tell by what they are judged.
        data_dir: where the data of problems are that cannot tell it without them.

    Returns:
        ``out`` as a path.

    Raises:
        FileNotFoundError: there is no such store.
        ValueError: it holds no final runs, or nothing tells by what they are judged.
        ImportError: an extra is missing: ``pip install "gaba[bench,plots]"``.

    Example:
        >>> import tempfile
        >>> from gaba.bench.trial import Trial, run_trial
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Store(f"{folder}/runs.sqlite") as store:
        ...         for seed in (0, 1):
        ...             at = Trial("conflict-toy", "uniform", "adam", 0.1, 0.0, seed, steps=5)
        ...             store.put(at, run_trial(at))
        ...     page = write(store.path, f"{folder}/report.md", "md").read_text(encoding="utf-8")
        >>> page.splitlines()[0]
        '# Balancing losses: a benchmark'
    """
    if format not in ("html", "md"):
        raise ValueError(f"format must be html or md, found {format!r}: choose one of the two")
    page = page_of(read(store, problems, data_dir))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = path.with_name(f"{path.stem}-pictures")
    text = page.html() if format == "html" else page.markdown(pictures)
    path.write_text(text, encoding="utf-8")
    return path


def read(
    store: str | os.PathLike[str],
    problems: Mapping[str, Problem] | None = None,
    data_dir: str | Path | None = None,
) -> Evidence:
    """What a store holds: the runs in blocks of one problem and optimizer, and their comparisons.

    Raises:
        FileNotFoundError, ValueError: as :func:`write`.
    """
    with Store(store, read_only=True) as opened:
        rows, edition = opened.rows(), opened.edition
    if not any(row.stage == "final" and not row.failed for row in rows):
        raise ValueError(
            f"store must hold final runs, found none among {len(rows)} in {os.fspath(store)}: "
            "let gaba bench run go on until the tuning is done"
        )
    return Evidence(tuple(blocks_of(rows, problems or {}, data_dir)), edition)
