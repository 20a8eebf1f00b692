"""Files that are either there and whole or not there: checkpoints, JSON, and lines of a log."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

CONFIG = "config.json"
HISTORY = "history.jsonl"
EPOCHS = "epochs.jsonl"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.json"
PREDICTIONS = "predictions.npz"


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets ``write`` fill a file beside ``path``, brings it to the disk, then renames it.

    Whoever is killed in between leaves the old file as it was; no one sees half of the new one.

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
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values as a checkpoint, atomically.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "checkpoint.pt"), {"step": 3})
    ...     load(Path(folder, "checkpoint.pt"))
    {'step': 3}
    """
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint in {path.parent}: train a run there first")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint of a run ({reason})") from error


def write_json(path: str | Path, value: object) -> None:
    """Writes ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as a compressed ``.npz``, atomically."""

    def write(file: IO[bytes]) -> None:
        np.savez_compressed(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def append_line(path: str | Path, value: object) -> None:
    """Adds one line of JSON to ``path`` and brings it to the disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_lines(path: str | Path, count: int) -> None:
    """Drops what follows the first ``count`` lines: what was written after the last checkpoint.

    Raises:
        ValueError: The file has fewer lines than that.
    """
    path = Path(path)
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = lines[:count]
    if len(kept) < count or any(not line.endswith(b"\n") for line in kept):
        raise ValueError(f"{path} must have {count} lines to go on from, got {len(lines)}")
    write_atomically(path, lambda file: file.writelines(kept))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renames need no sync
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
