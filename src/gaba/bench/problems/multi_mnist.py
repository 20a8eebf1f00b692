"""MultiMNIST: two digits over each other, to be told apart, and the picture to be drawn again.

Sabour, Frosst, Hinton, Dynamic Routing Between Capsules, NeurIPS 2017, in the two-task form of
Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018, section 5.1:
one digit at the top left and one at the bottom right of 36×36 pixels, brought down to 28×28. The
reconstruction of that picture is a third task.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from gaba.bench._data import batches, find, made
from gaba.bench._training import ByExample
from gaba.bench.problem import Metric, Problem, Rates, Session, Split

CANVAS, SIDE = 36, 28
COUNTS = {"train": 20_000, "validation": 2_000, "test": 5_000}
FIRST_HELD_OUT = 50_000
"""The training file's digits from here on are for validation only."""
BATCH, FEATURES = 64, 50
_TRAIN, _TEST = "train", "t10k"
TRAIN_IMAGES = f"{_TRAIN}-images-idx3-ubyte.gz"
"""The file by which the data are found."""
HEADS = {"left": 10, "right": 10, "reconstruction": SIDE * SIDE}
"""The outputs of each task."""


@final
@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures (N, 1, 28, 28), bytes, and the digits at the left and at the right, (N,) both."""

    pictures: Tensor
    left: Tensor
    right: Tensor

    def to(self, device: torch.device) -> Pictures:
        """The same on ``device``."""
        return Pictures(*(x.to(device) for x in (self.pictures, self.left, self.right)))


def overlaid(first: Tensor, second: Tensor) -> Tensor:
    """Bytes (N, 28, 28) twice to pictures (N, 1, 28, 28): sums up to 255, of 36×36 brought down."""
    canvas = torch.zeros(len(first), 1, CANVAS, CANVAS)
    canvas[:, 0, :SIDE, :SIDE] += first
    canvas[:, 0, -SIDE:, -SIDE:] += second
    small = interpolate(
        canvas.clamp(max=255), (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def compose(images: Tensor, labels: Tensor, count: int, seed: int) -> Pictures:
    """``count`` pictures of two digits each, drawn from ``images`` (M, 28, 28)."""
    pairs = torch.from_numpy(np.random.default_rng(seed).integers(len(images), size=(count, 2)))
    parts = [overlaid(images[rows[:, 0]], images[rows[:, 1]]) for rows in pairs.split(2000)]
    return Pictures(torch.cat(parts), labels[pairs[:, 0]], labels[pairs[:, 1]])


def digits(folder: Path, kind: str) -> tuple[Tensor, Tensor]:
    """The images (N, 28, 28), bytes, and labels (N,) of a pair of IDX files.

    Raises:
        ValueError: A file is not what its name says.
    """
    found: list[Tensor] = []
    for name, header in (("images-idx3", (2051, SIDE, SIDE)), ("labels-idx1", (2049,))):
        path = folder / f"{kind}-{name}-ubyte.gz"
        raw = gzip.decompress(path.read_bytes())
        magic, count, *shape = np.frombuffer(raw, ">i4", len(header) + 1).tolist()
        start = 4 * (len(header) + 1)
        if (magic, *shape) != header or len(raw) - start != count * int(np.prod(shape)):
            raise ValueError(f"{path} is no IDX file of MNIST: get the original files again")
        values = np.frombuffer(raw, np.uint8, offset=start).reshape(count, *shape)
        found.append(torch.from_numpy(values.copy()))
    return found[0], found[1].long()


@cache
def read(folder: Path) -> dict[str, Pictures]:
    """The three splits; no digit is in two of them."""
    images, labels = digits(folder, _TRAIN)
    early, late = (images[:FIRST_HELD_OUT], labels[:FIRST_HELD_OUT]), slice(FIRST_HELD_OUT, None)
    sources = {
        "train": early,
        "validation": (images[late], labels[late]),
        "test": digits(folder, _TEST),
    }
    return {
        split: compose(*sources[split], COUNTS[split], seed) for seed, split in enumerate(COUNTS)
    }


@final
class Net(nn.Module):
    """A small convolutional trunk and a head a task; by default two classifiers and a decoder."""

    def __init__(self, heads: Mapping[str, int] = HEADS) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2), nn.ReLU()),
            *(nn.Conv2d(16, 32, 5, stride=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 4 * 4, FEATURES), nn.ReLU()),
        )
        self.heads = nn.ModuleDict({task: _head(width) for task, width in heads.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Features (N, 50) to what each head gives: logits (N, 10), pixels (N, 784)."""
        return {task: head(features) for task, head in self.heads.items()}


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, width))


@final
class _Training(ByExample):
    def __init__(self, data: dict[str, Pictures], seed: int, device: torch.device) -> None:
        self.data = {split: pictures.to(device) for split, pictures in data.items()}
        self.model = self.net = made(Net, seed, device)
        self.shared = self.net.trunk
        self.order = batches(len(self.data["train"].left), BATCH, seed, device)

    @property
    def last_layer(self) -> nn.Module:
        return self.net.trunk[-2]

    def _each(self) -> dict[str, Tensor]:
        data, rows = self.data["train"], next(self.order)
        x = data.pictures[rows].float() / 255
        self._features = self.net.trunk(x)
        output = self.net(self._features)
        drawn = output["reconstruction"]
        return {
            "left": cross_entropy(output["left"], data.left[rows], reduction="none"),
            "right": cross_entropy(output["right"], data.right[rows], reduction="none"),
            "reconstruction": (drawn - x.flatten(1)).square().mean(dim=1),
        }

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        data = self.data[split]
        wrong, squares = {"left": 0, "right": 0}, 0.0
        for rows in torch.arange(len(data.left), device=data.left.device).split(500):
            x = data.pictures[rows].float() / 255
            output = self.net(self.net.trunk(x))
            for side, labels in (("left", data.left), ("right", data.right)):
                wrong[side] += int((output[side].argmax(dim=1) != labels[rows]).sum())
            squares += float((output["reconstruction"] - x.flatten(1)).square().mean(dim=1).sum())
        count = len(data.left)
        return {
            **{f"error_{side}": n / count for side, n in wrong.items()},
            "rmse_reconstruction": (squares / count) ** 0.5,
        }


@final
class MultiMnist(Problem):
    """The left digit, the right digit (cross-entropies) and the picture (mean squared error).

    A trunk of two convolutions and one layer to 50 features, three heads with one hidden layer;
    batches of 64 of 20,000 pictures. The squared error is the mean over the 784 pixels, in [0, 1],
    as ``MSELoss`` takes it, which makes it the quiet task. Judged by the two rates of error, whose
    trivial predictor guesses, and by the root mean squared error of a pixel, whose trivial
    predictor draws the mean training picture.
    """

    name = "multi-mnist"
    tasks: tuple[str, ...] = ("left", "right", "reconstruction")
    steps = 1200
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (3e-2, 0.1, 0.3)}  # noqa: RUF012
    weight_decays: tuple[float, ...] = (0.0, 1e-2)
    needs_data: ClassVar[str | None] = "mnist"

    def __init__(self, data_dir: str | Path | None = None) -> None:
        self.data = read(find("mnist", TRAIN_IMAGES, data_dir))
        pixels = self.data["train"].pictures.float() / 255
        self.metrics = (
            Metric("error_left", task="left", reference=0.9),
            Metric("error_right", task="right", reference=0.9),
            Metric(
                "rmse_reconstruction",
                task="reconstruction",
                reference=float(pixels.var(dim=0, correction=0).mean().sqrt()),
            ),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(self.data, seed, device)
