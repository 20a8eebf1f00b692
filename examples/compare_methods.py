"""Which method suits your model? One call trains it with several and prints the table.

The model learns where a spring is, in centimeters, and how much energy it stores, in joules. The
loss of the position is far larger, so with equal weights it decides what the trunk learns. Every
method starts from the same parameters and sees the same batches at each seed.

    python examples/compare_methods.py [STEPS [PICTURE.png]]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import gaba


class Spring(nn.Module):
    """A trunk that both tasks share, and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.position, self.energy = nn.Linear(32, 1), nn.Linear(32, 1)

    def losses(self, x: Tensor, position: Tensor, energy: Tensor) -> dict[str, Tensor]:
        """The squared errors of a batch; gaba.compare calls this with each batch of the data."""
        z = self.trunk(2 * x - 1)
        return {
            "position": mse_loss(self.position(z)[:, 0], position),
            "energy": mse_loss(self.energy(z)[:, 0], energy),
        }


def loader(seed: int, count: int, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    position = 10 * torch.sin(6 * x[:, 0])
    energy = (1 + x[:, 1]) * torch.sin(6 * x[:, 0]).square() / 2
    return DataLoader(TensorDataset(x, position, energy), batch_size=128, shuffle=shuffle)


def main(steps: int = 600, picture: str | None = None) -> None:
    found = gaba.compare(
        Spring,
        loader(seed=1, count=2048, shuffle=True),
        methods=["uniform", "gaba", "inverse", "dwa"],
        shared=lambda model: model.trunk,
        validation=loader(seed=2, count=512),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        steps=steps,
        seeds=3,
    )
    run = found.runs[-1]
    print(f"\nThe last run, {run.method} from seed {run.seed}: {run.history}")
    if picture is not None:
        found.plot(picture)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600, *sys.argv[2:3])
