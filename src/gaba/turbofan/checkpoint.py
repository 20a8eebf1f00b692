"""Files that appear whole or not at all: checkpoints, JSON, arrays, and lines of a log."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gaba.files import named

CONFIG = "config.json"
HISTORY = "history.jsonl"
EPOCHS = "epochs.jsonl"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.json"
PREDICTIONS = "predictions.npz"


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a file beside ``path``, bring it to the disk, then rename it.

    A process that is killed in between leaves the old file as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     write_atomically(path, lambda file: file.write(b"whole"))
    ...     path.read_text(), [p.name for p in Path(folder).iterdir()]
    ('whole', ['a.txt'])
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        with named(path), open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as a checkpoint, atomically.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "checkpoint.pt"), {"step": 3})
    ...     load(Path(folder, "checkpoint.pt"))
    {'step': 3}
    """
    held = io.BytesIO()  # torch says nothing of a full disk that the user could act on
    torch.save(dict(state), held)
    write_atomically(path, lambda file: file.write(held.getbuffer()))


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are unpickled.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint in {path.parent}: train a run there first")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict):
            raise ValueError(f"found {type(found).__name__}, not names with values")
        return found
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint of a run ({reason})") from error


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_metrics(run_dir: str | Path) -> dict[str, Any]:
    """What ``metrics.json`` of a run holds."""
    return json.loads(Path(run_dir, METRICS).read_text(encoding="utf-8"))


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, atomically."""
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def append_line(path: str | Path, value: object) -> None:
    """Add one line of JSON to ``path`` and bring it to the disk."""
    with named(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_lines(path: str | Path, count: int) -> None:
    """Drop what follows the first ``count`` lines: it was written after the last checkpoint.

    Raises:
        ValueError: The file has fewer lines than that.
    """
    path = Path(path)
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = lines[:count]
    if len(kept) < count or any(not line.endswith(b"\n") for line in kept):
        raise ValueError(f"{path} must have {count} lines to resume from, found {len(lines)}")
    write_atomically(path, lambda file: file.writelines(kept))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renames need no sync
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
