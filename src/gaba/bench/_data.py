"""What the problems have in common: where data are, seeded models, shuffled batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from gaba import folders as _folders

Model = TypeVar("Model", bound=nn.Module)


def find(folder: str, marker: str, data_dir: str | Path | None = None) -> Path:
    """The folder that holds ``marker``: a place or the ``folder`` in it.

    Raises:
        FileNotFoundError: No place has it.
    """
    return _folders.find(
        folder,
        lambda place: (place / marker).is_file(),
        data_dir or None,  # "" names no place
        lambda looked: FileNotFoundError(
            f"no {folder}/{marker} in {looked}: put the files there, give --data-dir, or set "
            f"{_folders.ENVIRONMENT} to the folder above {folder}"
        ),
    ).resolve()


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers from ``seed`` on; afterwards the generators are as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def made(make: Callable[[], Model], seed: int, device: torch.device) -> Model:
    """A model that is initialised on the CPU, so that it is the same on every device."""
    with drawn_from(seed, torch.device("cpu")):
        model = make()
    return model.to(device)


def batches(count: int, size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Rows of shuffled batches without end; the rest of a pass that fills no batch is left out.

    >>> [sorted(rows.tolist()) for rows, _ in zip(batches(2, 9, 0, torch.device("cpu")), "ab")]
    [[0, 1], [0, 1]]
    """
    generator, size = torch.Generator().manual_seed(seed), min(size, count)
    while True:
        order = torch.randperm(count, generator=generator).to(device)
        yield from order[: count // size * size].split(size)
