"""What the synthetic problems have in common: linear features, linear heads, the excess known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gaba.bench._data import made
from gaba.bench.problem import Session, Split


class Net(nn.Module):
    """Linear features of the inputs, and a head a task, a row of numbers."""

    def __init__(self, inputs: int, features: int, tasks: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(inputs, features, bias=False)
        heads = torch.randn(tasks, features) / features**0.5
        self.heads = nn.ParameterList(nn.Parameter(head.clone()) for head in heads)

    def matrix(self) -> Tensor:
        """All heads, (tasks, features)."""
        return torch.stack(list(self.heads))


class LinearTraining(Session):
    """One training on K regressions y_k = ⟨a_k, x⟩ + σ_k ε, with L_k = s_k · mean (ŷ_k − y_k)².

    A subclass says which of the errors count, in ``losses`` and ``losses_of_halves``.

    Args:
        tasks: The K names.
        coefficients: The rows a_k, (K, inputs).
        noise: σ, (K,).
        scales: s, (K,).
        features: How many the model has.
        least: The lower bound of the mean excess.
        seed: Decides all that is drawn.
        device: Where to train.
    """

    batch = 64

    def __init__(
        self,
        tasks: Sequence[str],
        coefficients: np.ndarray,
        noise: np.ndarray,
        scales: np.ndarray,
        features: int,
        least: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.tasks, self.least, self.device = tuple(tasks), least, device
        make = partial(Net, coefficients.shape[1], features, len(tasks))
        self.model = self.net = made(make, seed, device)
        self.shared = self.net.trunk
        self.generator = torch.Generator().manual_seed(seed)
        self.coefficients, self.noise, self.scales = (
            torch.from_numpy(x).float().to(device) for x in (coefficients, noise, scales)
        )
        self._features: Tensor | None = None

    @property
    def features(self) -> Tensor | None:
        return self._features

    @property
    def last_layer(self) -> nn.Module:
        return self.net.trunk

    def _errors(self) -> Tensor:
        """The scaled squared errors of the next batch, (64, K)."""
        count, inputs = self.coefficients.shape
        drawn = torch.randn(self.batch, inputs + count, generator=self.generator).to(self.device)
        x, noise = drawn.split([inputs, count], dim=1)
        self._features = features = self.net.trunk(x)
        y = x @ self.coefficients.T + self.noise * noise
        return self.scales * (features @ self.net.matrix().T - y).square()

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        found = self.net.matrix() @ self.net.trunk.weight
        excess = (found - self.coefficients).square().sum(dim=1).tolist()
        mean = float(np.mean(excess))
        figures = {f"excess_{task}": e for task, e in zip(self.tasks, excess, strict=True)}
        return figures | {"mean_excess": mean, "regret": mean - self.least}
