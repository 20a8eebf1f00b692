"""A problem of your own in the benchmark: two classes, about twenty lines.

A spring's position in centimetres and its energy in joules, from its phase and its stiffness. Name
it as ``problems = ["examples/own_problem.py:Springs"]`` in the file that ``gaba bench run`` takes;
here it is run for a few methods at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaba.bench import Metric, Problem, Session, Split, Trial, run_trial


class Spring(Session):
    """One training: a model made from the seed, and its batches in order."""

    def __init__(self, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.shared = self.trunk
        self.heads = nn.Linear(32, 2)
        self.model = nn.ModuleList([self.shared, self.heads]).to(device)
        self.draw, self.device = torch.Generator().manual_seed(seed), device

    def _errors(self, draw: torch.Generator, count: int) -> dict[str, Tensor]:
        x = torch.rand(count, 2, generator=draw).to(self.device)
        position = 10 * torch.sin(6 * x[:, 0])
        energy = (1 + x[:, 1]) * torch.sin(6 * x[:, 0]).square() / 2
        a, b = self.heads(self.trunk(2 * x - 1)).unbind(dim=1)
        return {"position": a - position, "energy": b - energy}

    def losses(self) -> dict[str, Tensor]:
        """The next batch."""
        return {task: e.square().mean() for task, e in self._errors(self.draw, 128).items()}

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        """Root mean squared errors on points of their own."""
        held_out = torch.Generator().manual_seed({"validation": -1, "test": -2}[split])
        errors = self._errors(held_out, 2000)
        return {f"rmse_{task}": float(e.square().mean().sqrt()) for task, e in errors.items()}


class Springs(Problem):
    """What is trained, and how it is judged: against the errors of the best constant."""

    name, tasks, steps = "springs", ("position", "energy"), 600
    metrics = (
        Metric("rmse_position", task="position", reference=7.0),
        Metric("rmse_energy", task="energy", reference=0.28),
    )

    def start(self, seed: int, device: torch.device) -> Session:
        """Everything is decided by the seed."""
        return Spring(seed, device)


if __name__ == "__main__":
    print(f"{'method':10} {'position (cm)':>14} {'energy (J)':>11}   on test data")
    for method in ("uniform", "paper", "gaba"):
        trial = Trial(
            *("springs", method, "adam", 1e-2, 0.0), seed=0, steps=600, spec=f"{__file__}:Springs"
        )
        test = run_trial(trial)["test"]
        print(f"{method:10} {test['rmse_position']:14.2f} {test['rmse_energy']:11.4f}")
