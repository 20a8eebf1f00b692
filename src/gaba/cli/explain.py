"""``gaba explain``: the diagnosis of a recorded run."""

from __future__ import annotations

import json
from pathlib import Path

import gaba
from gaba.record.diagnosis import diagnose

SIMULATED = "simulated data (a fleet made up by gaba, not NASA's)"


def explain(run: Path) -> str:
    """The diagnosis of the run folder or JSONL file ``run``, under a line that says what it is.

    Raises:
        FileNotFoundError: there is no such record.
        ValueError: the file is no record, or holds no steps.
    """
    path = run / "history.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise FileNotFoundError(f"no record of a run in {run}: give a folder with history.jsonl")
    history = gaba.History.read(path)
    if not len(history):
        raise ValueError(f"{path} holds no steps yet: let the run go on for a while")
    return f"{_heading(path)}\n{diagnose(history)}"


def _heading(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        meta = json.loads(file.readline()).get("meta", {})
    if meta.get("simulated"):
        meta["subset"] = SIMULATED
    parts = [str(meta[name]) for name in ("subset", "method", "size") if name in meta]
    if "seed" in meta:
        parts.append(f"seed {meta['seed']}")
    return f"{' · '.join(parts)} ({path})" if parts else str(path)
