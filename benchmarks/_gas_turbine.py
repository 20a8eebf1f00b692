"""The gas-turbine data as three regressions in the units of the plant, and a small network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from _models import perceptron
from gaba.bench.problems.gas_turbine import INPUTS, TARGETS, GasTurbine


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


def load(data_dir: str | None) -> tuple[Rows, Rows]:
    """Training and validation rows of the years 2011 to 2013, as the benchmark of losses has them.

    Raises:
        FileNotFoundError: The files are not there.
    """
    rows = GasTurbine(data_dir=data_dir).data.rows
    train, validation = (Rows(rows[s].inputs, rows[s].targets) for s in ("train", "validation"))
    return train, validation


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
