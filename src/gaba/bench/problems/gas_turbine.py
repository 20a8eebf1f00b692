"""A gas turbine's yield and emissions: three regressions whose variances lie 50 times apart.

Kaya, Tüfekci, Uzun, "Predicting CO and NOx emissions from gas turbines: novel data and a benchmark
PEMS", Turkish Journal of Electrical Engineering & Computer Sciences 27, 2019; UCI Machine Learning
Repository. Eight sensors in, three targets out, each loss a mean squared error in the plant's units
squared: variances of 257 MWh² (TEY), 5.3 (CO) and 122 mg²/m⁶ (NOX). That these lie so far apart is
what there is to balance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from gaba.bench._data import batches, find, made
from gaba.bench._training import ByExample
from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.extras import library

TARGETS: tuple[str, ...] = ("TEY", "CO", "NOX")
INPUTS = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "CDP")
YEARS = (2011, 2012, 2013, 2014, 2015)
TRAIN_YEARS = 3
STRETCH = 100
"""Rows of one stretch of time; of the training years each fifth is held out for validation."""
WIDTH = 64
BATCH = 256

Form = Literal["time", "random"]


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs (N, 8), standardised, and targets (N, 3), centred, by the training rows."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same on ``device``."""
        return Rows(self.inputs.to(device), self.targets.to(device))


@final
@dataclass(frozen=True, eq=False)
class Data:
    """The three splits, the rows of the table that each holds, and the targets' deviations."""

    rows: dict[str, Rows]
    index: dict[str, np.ndarray]
    deviation: dict[str, float]


def split(years: np.ndarray, form: Form) -> dict[str, np.ndarray]:
    """Row numbers by split.

    ``"time"``: 2011 to 2013 but for each fifth stretch of 100 rows are for training, those
    stretches for validation, 2014 and 2015 for test. ``"random"``: 60, 20 and 20 % of all rows.
    """
    every = np.arange(len(years))
    if form == "random":
        shuffled = np.random.default_rng(0).permutation(every)
        at = np.array([0.6, 0.8]) * len(every)
        parts = np.split(shuffled, at.astype(int))
    else:
        early = years < YEARS[TRAIN_YEARS]
        held_out = every // STRETCH % 5 == 4
        parts = [every[early & ~held_out], every[early & held_out], every[~early]]
    return dict(zip(("train", "validation", "test"), parts, strict=True))


@cache
def read(folder: Path, form: Form) -> Data:
    """All five years from ``folder``, split as ``form`` says and scaled by the training rows."""
    tables = [_table(folder / f"gt_{year}.csv.xz") for year in YEARS]
    years = np.repeat(YEARS, [len(x) for x, _ in tables])
    x, y = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    index = split(years, form)
    train = index["train"]
    x = (x - x[train].mean(0)) / x[train].std(0)
    deviation = dict(zip(TARGETS, y[train].std(0).tolist(), strict=True))
    y = y - y[train].mean(0)
    rows = {
        name: Rows(torch.from_numpy(x[at]).float(), torch.from_numpy(y[at]).float())
        for name, at in index.items()
    }
    return Data(rows, index, deviation)


def _table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = library("pandas", "the problem gas-turbine needs", "bench").read_csv(path)
    return table[list(INPUTS)].to_numpy(float), table[list(TARGETS)].to_numpy(float)


@final
class Net(nn.Module):
    """A shared perceptron with three hidden layers, and one linear head a target."""

    def __init__(self) -> None:
        super().__init__()
        widths = (len(INPUTS), WIDTH, WIDTH, WIDTH)
        layers = [(nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(widths)]
        self.trunk = nn.Sequential(*(part for layer in layers for part in layer))
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, 1) for name in TARGETS})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Features (N, 64) to the prediction of each target (N,)."""
        return {name: head(features)[:, 0] for name, head in self.heads.items()}


@final
class _Training(ByExample):
    def __init__(self, data: Data, seed: int, device: torch.device) -> None:
        self.rows = {name: rows.to(device) for name, rows in data.rows.items()}
        self.model = self.net = made(Net, seed, device)
        self.shared = self.net.trunk
        self.order = batches(len(self.rows["train"].inputs), BATCH, seed, device)

    @property
    def last_layer(self) -> nn.Module:
        return self.net.trunk[-2]

    def _each(self) -> dict[str, Tensor]:
        at, rows = next(self.order), self.rows["train"]
        self._features = self.net.trunk(rows.inputs[at])
        targets = rows.targets[at]
        return {
            name: (predicted - targets[:, k]).square()
            for k, (name, predicted) in enumerate(self.net(self._features).items())
        }

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        rows = self.rows[split]
        predicted = self.net(self.net.trunk(rows.inputs))
        return {
            f"rmse_{name}": float((p - rows.targets[:, k]).square().mean().sqrt())
            for k, (name, p) in enumerate(predicted.items())
        }


@final
class GasTurbine(Problem):
    """Yield (MWh) and emissions of CO and NOx (mg/m³) from eight sensors, hour by hour.

    A perceptron 8→64→64→64 with one linear head a target, batches of 256 rows. Judged by the root
    mean squared error of each target; the trivial predictor says the mean of the training rows.
    ``form`` ``"time"`` tests on later years than it trains on, with the drift of NOX between them;
    ``"random"`` draws all three splits from all five years.
    """

    tasks: tuple[str, ...] = TARGETS
    steps = 2000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012
    weight_decays: tuple[float, ...] = (0.0, 1e-2)
    needs_data: ClassVar[str | None] = "gas_turbine"

    def __init__(self, form: Form = "time", data_dir: str | Path | None = None) -> None:
        self.name = f"gas-turbine-{form}"
        self.data = read(find("gas_turbine", f"gt_{YEARS[0]}.csv.xz", data_dir), form)
        self.metrics = tuple(
            Metric(f"rmse_{name}", task=name, reference=self.data.deviation[name])
            for name in TARGETS
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(self.data, seed, device)


in_time = partial(GasTurbine, "time")
at_random = partial(GasTurbine, "random")
