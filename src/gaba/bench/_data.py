"""What the problems have in common: where data are, seeded initialisation, batches in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, final

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


@final
class Order:
    """Rows of shuffled batches without end; the rest of a pass that fills no batch is left out."""

    def __init__(self, count: int, size: int, seed: int, device: torch.device) -> None:
        self.count, self.size, self.device = count, min(size, count), device
        self.generator = torch.Generator().manual_seed(seed)
        self.rows: Iterator[Tensor] = iter(())

    def __next__(self) -> Tensor:
        for rows in self.rows:
            return rows
        whole = torch.randperm(self.count, generator=self.generator).to(self.device)
        self.rows = iter(whole[: self.count // self.size * self.size].split(self.size))
        return next(self.rows)
