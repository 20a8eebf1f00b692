"""MultiMNIST with one main task and two helpers, of which one is useless.

The pictures, the trunk and the heads are those of :mod:`gaba.bench.problems.multi_mnist`. What
matters is the left digit alone. ``right``, the other digit, shares what it needs; ``shuffled`` has
the left digits of other pictures as its labels, so all that can be learned from it is how frequent
the digits are, and its gradient is noise that does not grow less. Balancing that gives every task
an equal pull gives the noise a third. Auxiliary learning of this kind, judged by the main task
alone: Liu, Davison, Johns, Self-Supervised Generalisation with Meta Auxiliary Learning, NeurIPS
2019; the shuffled labels are this package's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gaba.bench._data import batches, find, made
from gaba.bench._training import ByExample
from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.bench.problems.multi_mnist import BATCH, TRAIN_IMAGES, Net, Pictures, read

MAIN = "left"
TASKS: tuple[str, ...] = (MAIN, "right", "shuffled")


@cache
def labels(folder: Path) -> dict[str, dict[str, Tensor]]:
    """By split, the digits of each task, (N,): the shuffled ones are a permutation of the left."""
    found: dict[str, dict[str, Tensor]] = {}
    for seed, (split, pictures) in enumerate(read(folder).items()):
        order = torch.randperm(len(pictures.left), generator=torch.Generator().manual_seed(seed))
        found[split] = dict(
            zip(TASKS, (pictures.left, pictures.right, pictures.left[order]), strict=True)
        )
    return found


@final
class _Training(ByExample):
    def __init__(
        self,
        data: Mapping[str, Pictures],
        digits: Mapping[str, Mapping[str, Tensor]],
        seed: int,
        device: torch.device,
    ) -> None:
        self.pictures = {split: data[split].pictures.to(device) for split in data}
        self.digits = {
            split: {task: x.to(device) for task, x in by_task.items()}
            for split, by_task in digits.items()
        }
        self.model = self.net = made(lambda: Net(dict.fromkeys(TASKS, 10)), seed, device)
        self.shared = self.net.trunk
        self.order = batches(len(self.pictures["train"]), BATCH, seed, device)

    @property
    def last_layer(self) -> nn.Module:
        return self.net.trunk[-2]

    def _each(self) -> dict[str, Tensor]:
        rows = next(self.order)
        self._features = self.net.trunk(self.pictures["train"][rows].float() / 255)
        digits = self.digits["train"]
        return {
            task: cross_entropy(logits, digits[task][rows], reduction="none")
            for task, logits in self.net(self._features).items()
        }

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        pictures, digits = self.pictures[split], self.digits[split]
        wrong = dict.fromkeys(TASKS, 0)
        for rows in torch.arange(len(pictures), device=pictures.device).split(500):
            output = self.net(self.net.trunk(pictures[rows].float() / 255))
            for task, logits in output.items():
                wrong[task] += int((logits.argmax(dim=1) != digits[task][rows]).sum())
        return {f"error_{task}": n / len(pictures) for task, n in wrong.items()}


@final
class MultiMnistAuxiliary(Problem):
    """The left digit; the right one and shuffled labels are helpers that do not count.

    A trunk of two convolutions and one layer to 50 features, three heads with one hidden layer;
    batches of 64 of 20,000 pictures. The rate of error of the left digit decides alone, both which
    parameters are kept and how good they are; those of the helpers are shown. Who guesses has 0.9.
    """

    name = "multi-mnist-auxiliary"
    tasks = TASKS
    steps = 1200
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (3e-2, 0.1, 0.3)}  # noqa: RUF012
    weight_decays: tuple[float, ...] = (0.0, 1e-2)
    needs_data: ClassVar[str | None] = "mnist"
    metrics: tuple[Metric, ...] = tuple(
        Metric(f"error_{task}", task=task, reference=0.9, decides=task == MAIN) for task in TASKS
    )

    def __init__(self, data_dir: str | Path | None = None) -> None:
        folder = find("mnist", TRAIN_IMAGES, data_dir)
        self.data, self.labels = read(folder), labels(folder)

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(self.data, self.labels, seed, device)
