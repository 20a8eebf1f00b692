"""The moving parts of a training run, each with a state that a checkpoint can hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from gaba.turbofan.losses import Batch

if TYPE_CHECKING:
    from gaba.turbofan._config import TrainConfig
    from gaba.turbofan.model import TurbofanNet
    from gaba.turbofan.windows import Windows


CALIBRATION = 2048
"""About so many training windows, evenly spaced, give the BatchNorm statistics."""
_CALIBRATION_BATCH = 512


@final
class Shuffled:
    """Endless batches of shuffled windows; each pass over the windows has its own order.

    The rest of a pass that fills no batch is left out. The state is the position in the pass, and
    that of the generator before it.
    """

    def __init__(self, seen: Windows, batch_size: int, seed: int, device: torch.device) -> None:
        arrays = (seen.inputs, seen.rul, seen.health)
        self.all = Batch(*(torch.from_numpy(a).to(device) for a in arrays))
        self.batch_size = min(batch_size, len(seen))
        self.generator = torch.Generator().manual_seed(seed)
        self._start()

    def _start(self) -> None:
        self.before = self.generator.get_state()
        self.order = torch.randperm(len(self.all.rul), generator=self.generator)
        self.position = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.position + self.batch_size > len(self.order):
            self._start()
        rows = self.order[self.position : self.position + self.batch_size]
        rows = rows.to(self.all.rul.device)
        self.position += self.batch_size
        return Batch(*(tensor[rows] for tensor in self.all))

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"before": self.before, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to ``state``."""
        self.generator.set_state(state["before"])
        self._start()
        self.position = state["position"]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The moving average of parameters and buffers: θ̄ ← d θ̄ + (1 − d) θ.

    d = min(``decay``, (1 + t)/(10 + t)) at step t, so that a short run forgets its start.
    """

    def update(mean: Tensor, value: Tensor, t: Tensor | int) -> Tensor:
        if not mean.is_floating_point():  # a count
            return value
        d = min(decay, (1 + int(t)) / (10 + int(t)))
        return mean.lerp(value, 1 - d)

    return AveragedModel(model, avg_fn=update, use_buffers=True)


def recalibrated(model: TurbofanNet, inputs: Tensor) -> TurbofanNet:
    """A copy of ``model`` whose BatchNorm statistics are those of ``inputs`` without dropout.

    Averaged parameters need their own statistics (Izmailov et al., Averaging Weights Leads to Wider
    Optima, UAI 2018, section 3.2), and dropout makes the statistics of training too large.
    """
    fresh = copy.deepcopy(model).eval()
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches that follow
        norm.train()
    with torch.no_grad():
        for part in inputs.split(_CALIBRATION_BATCH):
            fresh.backbone.convolutions(part.transpose(1, 2))
    return fresh.eval()


@final
class Schedule:
    """The learning rate: a linear warm-up, then a cut whenever the validation does not improve."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
        self.warmup = max(config.warmup_steps, 1)
        self.linear = LinearLR(optimizer, start_factor=1 / self.warmup, total_iters=self.warmup)
        self.plateau = ReduceLROnPlateau(
            optimizer,
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            threshold=config.plateau_threshold,
        )

    def step(self) -> None:
        """After a step of the optimizer."""
        if self.linear.last_epoch < self.warmup:
            self.linear.step()

    def validated(self, rmse: float) -> None:
        """After a validation."""
        if self.linear.last_epoch >= self.warmup:
            self.plateau.step(rmse)

    def state_dict(self) -> dict[str, Any]:
        """Both parts."""
        return {"linear": self.linear.state_dict(), "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both parts."""
        self.linear.load_state_dict(state["linear"])
        self.plateau.load_state_dict(state["plateau"])


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers from ``seed`` on and deterministic algorithms, restored afterwards.

    On devices other than the CPU an operation without a deterministic form only warns.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's random numbers."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Go back to a :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
