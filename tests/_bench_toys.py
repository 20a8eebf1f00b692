"""Problems of a few numbers for the tests of the benchmark's runner: `_bench_toys.py:Toy`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from gaba.bench import Metric, Problem, Session, Split

PAUSE = "GABA_TOY_PAUSE"
HERE = Path(__file__)


class ToySession(Session):
    """Two tasks regress on the same noisy inputs through one small layer."""

    def __init__(self, seed: int) -> None:
        self.batches = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in ("a", "b")})
        self.model = nn.ModuleDict({"trunk": self.trunk, "heads": self.heads})
        self.shared = self.trunk
        self.tested = 0

    def each(self, x: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        a, b = (self.heads[task](z)[:, 0] for task in ("a", "b"))
        return {"a": (a - x[:, 0]).square(), "b": 100 * (b - x.sum(1)).square()}

    def losses(self) -> dict[str, Tensor]:
        time.sleep(float(os.environ.get(PAUSE, "0")))
        x = torch.randn(8, 3, generator=self.batches)
        return {task: loss.mean() for task, loss in self.each(x).items()}

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        self.model.eval()
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(7 + (split == "test")))
        found = {task: float(loss.mean()) for task, loss in self.each(x).items()}
        self.model.train()
        return {**found, "process": float(os.getpid())}


class Toy(Problem):
    """The runner's everyday case."""

    name = "toy"
    tasks = ("a", "b")
    metrics = (Metric("a", "a", reference=1.0), Metric("b", "b", reference=300.0))
    steps = 6
    learning_rates = {"adam": (0.003, 0.03, 0.3), "sgd": (1e-4, 1e-3)}  # noqa: RUF012
    weight_decays = (0.0, 0.1)

    def start(self, seed: int, device: torch.device) -> Session:
        return ToySession(seed)


class PoisonedSession(ToySession):
    """The worse the validation, the more attractive the test."""

    def evaluate(self, split: Split) -> dict[str, float]:
        found = super().evaluate("validation")
        if split == "test":
            return {name: 1 / value for name, value in found.items()}
        return found


class Poisoned(Toy):
    """Who chooses by its test figures chooses the worst."""

    name = "poisoned"

    def start(self, seed: int, device: torch.device) -> Session:
        return PoisonedSession(seed)


class BrokenSession(ToySession):
    """Raises an error, or runs off to infinity, with the large learning rates."""

    def __init__(self, seed: int, broken: Path) -> None:
        super().__init__(seed)
        self.broken = broken

    def losses(self) -> dict[str, Tensor]:
        if self.broken.exists():
            raise ArithmeticError(f"broken by {self.broken.name}")
        return super().losses()


class Broken(Toy):
    """Fails as long as there is a file named broken in the current folder."""

    name = "broken"

    def start(self, seed: int, device: torch.device) -> Session:
        return BrokenSession(seed, Path("broken"))


class ExplodingSession(ToySession):
    """Its losses are not finite from the fourth batch on, for odd seeds."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.left = 3 if seed % 2 else 10**9

    def losses(self) -> dict[str, Tensor]:
        self.left -= 1
        factor = 1.0 if self.left >= 0 else float("nan")
        return {task: factor * loss for task, loss in super().losses().items()}


class Exploding(Toy):
    """Diverges with odd seeds."""

    name = "exploding"
    steps = 60

    def start(self, seed: int, device: torch.device) -> Session:
        return ExplodingSession(seed)


def spec(name: str) -> str:
    """Where the problem of that name in this file is found."""
    return f"{HERE}:{name}"
