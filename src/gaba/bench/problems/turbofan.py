"""Turbofan prognostics on NASA C-MAPSS: remaining useful life and health class from one network.

The application of :mod:`gaba.turbofan` with its data, windows, small network and losses, under the
benchmark's own loop. A squared error in cycles beside a cross-entropy: their norms lie about 550
times apart.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from gaba import turbofan
from gaba.bench._data import batches, drawn_from, made
from gaba.bench._training import ByExample
from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.turbofan.data import SIMULATED, find_data_dir
from gaba.turbofan.metrics import health_metrics, nasa_score, rmse

RECIPE = turbofan.TrainConfig()
"""Where the sizes and settings of the data and of the network come from."""


@lru_cache(maxsize=2)
def read(subset: str, folder: Path) -> turbofan.Fleet:
    """One subset of the files in ``folder``."""
    return turbofan.load(subset, folder)


@lru_cache(maxsize=2)
def prepared(subset: str, folder: Path, seed: int) -> turbofan.Prepared:
    """Its windows; the seed chooses the validation engines."""
    return turbofan.prepare(
        read(subset, folder),
        seed=seed,
        cap=RECIPE.rul_cap,
        smoothing=RECIPE.smoothing,
        capped_share=RECIPE.capped_share,
    )


@final
class _Training(ByExample):
    grad_clip = RECIPE.clip

    def __init__(self, data: turbofan.Prepared, seed: int, device: torch.device) -> None:
        make = partial(turbofan.TurbofanNet, RECIPE.size, dropout=RECIPE.dropout)
        self.model = self.net = made(make, seed, device)
        self.shared = self.net.backbone
        self.seen = {"validation": data.validation, "test": data.test}
        arrays = (data.train.inputs, data.train.rul, data.train.health)
        self.all = turbofan.Batch(*(torch.from_numpy(array).to(device) for array in arrays))
        self.order = batches(len(data.train), RECIPE.batch_size, seed, device)
        self.masks = torch.Generator().manual_seed(seed)
        self.device = device

    @property
    def last_layer(self) -> nn.Module:
        return self.net.backbone.project[0]

    def _each(self) -> dict[str, Tensor]:
        rows = next(self.order)
        batch = turbofan.Batch(*(tensor[rows] for tensor in self.all))
        # Whatever the method draws, the masks of dropout are those of the seed and the step.
        of_this_step = int(torch.randint(2**62, (), generator=self.masks))
        with drawn_from(of_this_step, self.device):
            self._features = self.net.backbone(batch.inputs)
        output = self.net.heads(self._features)
        cross_entropy = nn.functional.cross_entropy
        return {
            "rul": (output["rul"] - batch.rul).square(),
            "health": cross_entropy(output["health"], batch.health, reduction="none"),
        }

    def evaluate(self, split: Split) -> dict[str, float]:
        seen = self.seen[split]
        said = turbofan.predict(self.net, seen.inputs)
        if not np.isfinite(said.rul).all():
            return dict.fromkeys(("rmse", "macro_f1", "nasa", "accuracy"), float("nan"))
        health = health_metrics(said.health_class, seen.health)
        return {
            "rmse": rmse(said.rul, seen.rul),
            "macro_f1": health.macro_f1,
            "nasa": nasa_score(said.rul, seen.rul),
            "accuracy": health.accuracy,
        }


@final
class Turbofan(Problem):
    """Remaining useful life, capped at 125 cycles, and one of three classes of health.

    The small network (conv, LSTM, attention), batches of 128 windows, smoothed and thinned as
    ``gaba train`` does. The seed also chooses the engines for validation, 20 %; test is the last
    window of each test engine. Judged by the root mean squared error, whose trivial predictor says
    the mean label, and by macro-F1, whose trivial predictor says the commonest class. Shown
    besides: the NASA score, on capped labels, and the accuracy. ``subset`` is one of the four, or
    ``"simulated"``, which reads no files.
    """

    tasks: tuple[str, ...] = turbofan.TASKS
    steps = 500
    learning_rates: Rates = {"adam": (5e-4, 1e-3, 2e-3), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012
    weight_decays: tuple[float, ...] = (1e-4, 1e-2)
    needs_data: ClassVar[str | None] = "cmapss"

    def __init__(self, subset: str = "FD001", data_dir: str | Path | None = None) -> None:
        self.name = f"turbofan-{subset.lower()}"
        self.subset = subset
        self.folder = Path() if subset == SIMULATED else find_data_dir(data_dir).resolve()
        # Of one split for all seeds, so that figures of several seeds can be compared.
        train = prepared(subset, self.folder, 0).train
        commonest = np.full(len(train), np.bincount(train.health).argmax())
        self.metrics = (
            Metric("rmse", task="rul", reference=float(train.rul.std())),
            Metric(
                "macro_f1",
                task="health",
                higher_is_better=True,
                reference=health_metrics(commonest, train.health).macro_f1,
            ),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(prepared(self.subset, self.folder, seed), seed, device)


fd001 = partial(Turbofan, "FD001")
fd002 = partial(Turbofan, "FD002")
fd003 = partial(Turbofan, "FD003")
fd004 = partial(Turbofan, "FD004")
