"""The gas-turbine data as three regressions in the units of the plant, and a small network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from _models import perceptron

TARGETS = ("TEY", "CO", "NOX")
INPUTS = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP")
YEARS = (2011, 2012, 2013)
BLOCK = 100
"""Rows of one stretch of time; each fifth stretch is held out for validation."""


@final
@dataclass(frozen=True)
class Rows:
    """Inputs (N, 8), standardised, and targets (N, 3), centred, in MWh, mg/m³ and mg/m³."""

    inputs: Tensor
    targets: Tensor

    def draw(self, size: int, generator: torch.Generator) -> Rows:
        """A batch of ``size`` rows."""
        at = torch.randint(len(self.inputs), (size,), generator=generator)
        return Rows(self.inputs[at], self.targets[at])


def folder(data_dir: str | None) -> Path:
    """Where the files are: ``data_dir``, else ``GABA_DATA``, else ``../shared/data``.

    Raises:
        FileNotFoundError: none of these holds them.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for root in filter(None, (data_dir, os.environ.get("GABA_DATA"), beside)):
        if (found := Path(root, "gas_turbine")).is_dir():
            return found
    raise FileNotFoundError("no gas_turbine folder: give --data-dir, or set GABA_DATA")


def load(data_dir: str | None) -> tuple[Rows, Rows]:
    """Training and validation rows of the years 2011 to 2013."""
    parts = [pd.read_csv(folder(data_dir) / f"gt_{year}.csv.xz") for year in YEARS]
    table = pd.concat(parts, ignore_index=True)
    held_out = np.arange(len(table)) // BLOCK % 5 == 4
    x = table[list(INPUTS)].to_numpy(dtype=np.float64)
    y = table[list(TARGETS)].to_numpy(dtype=np.float64)
    x = (x - x[~held_out].mean(0)) / x[~held_out].std(0)
    y = y - y[~held_out].mean(0)
    both = [
        Rows(*(torch.from_numpy(part[rows]).float() for part in (x, y)))
        for rows in (~held_out, held_out)
    ]
    return both[0], both[1]


@final
class Net(nn.Module):
    """A shared perceptron with three hidden layers, and one linear head a target."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(perceptron(len(INPUTS), width, width, width), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in TARGETS})

    def losses(self, rows: Rows) -> dict[str, Tensor]:
        """The mean squared errors by target, each in its own unit squared."""
        z = self.trunk(rows.inputs)
        return {
            name: nn.functional.mse_loss(head(z)[:, 0], rows.targets[:, k])
            for k, (name, head) in enumerate(self.heads.items())
        }
