"""What the problems have in common: where data are, seeded initialisation, batches in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, final

import torch
from torch import Tensor, nn

ENVIRONMENT = "GABA_DATA"
"""The environment variable that names the folder with the data."""

Model = TypeVar("Model", bound=nn.Module)


def places(data_dir: str | None) -> list[Path]:
    """Where data are looked for; a place that the caller or the environment names is the only one.

    In this order: ``data_dir``; ``GABA_DATA``; ``data`` and ``../shared/data``, in the current
    directory and in the project.
    """
    if named := data_dir or os.environ.get(ENVIRONMENT):
        return [Path(named).expanduser()]
    roots = [Path()]
    project = Path(__file__).resolve().parents[3]
    if (project / "pyproject.toml").is_file() and project != Path.cwd():
        roots.append(project)
    return [
        *(root / "data" for root in roots),
        *(root / ".." / "shared" / "data" for root in roots),
    ]


def find(folder: str, marker: str, data_dir: str | None = None) -> Path:
    """The folder that holds ``marker``: a place or the ``folder`` in it.

    Raises:
        FileNotFoundError: No place has it.
    """
    looked = places(data_dir)
    for place in looked:
        for candidate in (place, place / folder):
            if (candidate / marker).is_file():
                return candidate.resolve()
    where = " or ".join(dict.fromkeys(str(place) for place in looked))
    raise FileNotFoundError(
        f"no {folder}/{marker} in {where}: put the files there, give --data-dir, or set "
        f"{ENVIRONMENT} to the folder above {folder}"
    )


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


def means(each: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each task's losses by example, (N,)."""
    return {task: losses.mean() for task, losses in each.items()}


def means_of_halves(each: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means over the two halves of each task's losses by example: (N,) to (2,), N even."""
    return {task: losses.reshape(2, -1).mean(dim=1) for task, losses in each.items()}
