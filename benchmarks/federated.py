"""Flower's FedAvg against clients weighted by inverse update norm, on MNIST split over 10 clients.

    make results-flwr        (or, with Flower installed: python benchmarks/federated.py)

Five splits, one a question: all honest; one client with a 100-fold learning rate; one that hardly
moves; an honest one with half of the data; and that one with digits that nobody else has. All
clients run in this process behind Flower's own strategies and messages, without its simulation
engine. Writes ``docs/results/federated.md``, its picture and its figures. MNIST (four gzipped IDX
files) is in ``data/mnist`` or ``../shared/data/mnist``, or where ``--data`` says.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from flwr.app import (  # pyright: ignore[reportMissingImports]
    Array,
    ArrayRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid  # pyright: ignore[reportMissingImports]
from flwr.serverapp.strategy import FedAvg, FedMedian  # pyright: ignore[reportMissingImports]
from flwr.supercore.task_identity import TaskIdentity  # pyright: ignore[reportMissingImports]
from matplotlib.figure import Figure
from torch import Tensor, nn

import gaba
from gaba.domains.federated import BalancedFedAvg, ClientWeights, update_norm

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("#000000", "#56B4E9", "#D55E00", "#E69F00", "#F0E442", "#009E73")
CLIENTS, BATCH, LR = 10, 32, 0.1
GOAL = 0.8


@final
@dataclass(frozen=True)
class Setting:
    """A split of the data over the clients, and what is odd about client 0.

    Attributes:
        title: In words.
        lr_factor: Of client 0's learning rate.
        big: Client 0 has half of all images, and the others equal parts of the rest.
        own_digits: Client 0 alone has the digits 5 to 9.
    """

    title: str
    lr_factor: float = 1.0
    big: bool = False
    own_digits: bool = False


SETTINGS = {
    "honest": Setting("all honest, uneven"),
    "wild": Setting("client 0: wild, learning rate × 100", lr_factor=100.0),
    "idle": Setting("client 0: idle, learning rate × 0.0001", lr_factor=1e-4),
    "big": Setting("client 0: honest, half of the data", big=True),
    "own digits": Setting(
        "client 0: honest, half of the data, alone with 5 to 9", big=True, own_digits=True
    ),
}

STRATEGIES: dict[str, Callable[[], Any]] = {
    "FedAvg": lambda: FedAvg(fraction_evaluate=0.0),
    "FedMedian": lambda: FedMedian(fraction_evaluate=0.0),
    "balanced": lambda: BalancedFedAvg(fraction_evaluate=0.0),
    "balanced, simplex": lambda: BalancedFedAvg(
        ClientWeights(scale="simplex"), fraction_evaluate=0.0
    ),
    "balanced, simplex, floor 0.1": lambda: BalancedFedAvg(
        ClientWeights(scale="simplex", floor=0.1), fraction_evaluate=0.0
    ),
    "balanced by examples": lambda: BalancedFedAvg(
        ClientWeights("examples"), fraction_evaluate=0.0
    ),
}


@final
@dataclass(frozen=True)
class Digits:
    """Images (N, 784) from 0 to 1 and labels (N,), for training and for the test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def read(cls, folder: Path, train: int, test: int, seed: int = 0) -> Digits:
        """A random part of MNIST."""
        draw = np.random.default_rng(seed)
        parts: list[Tensor] = []
        for name, count in (("train", train), ("t10k", test)):
            images = _idx(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
            labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz", 8)
            chosen = draw.permutation(len(labels))[:count]
            parts += [torch.tensor(images[chosen] / 255.0, dtype=torch.float32)]
            parts += [torch.tensor(labels[chosen], dtype=torch.int64)]
        return cls(*parts)

    @classmethod
    def simulated(cls, train: int, test: int, seed: int = 0) -> Digits:
        """Ten noisy patterns, for a trial without MNIST."""
        torch.manual_seed(seed)
        patterns = torch.rand(10, 784)
        labels = torch.randint(10, (train + test,))
        images = patterns[labels] + 0.3 * torch.randn(train + test, 784)
        return cls(images[:train], labels[:train], images[train:], labels[train:])


def _idx(path: Path, head: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=head)


def split(setting: Setting, labels: Tensor, seed: int) -> list[Tensor]:
    """The indices of each client's images; labels are skewed (Dirichlet 0.5) if all are honest."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    if setting.big:
        first = order[: len(order) // 2]
        if setting.own_digits:
            high = labels.numpy()[order] >= 5
            first, order = order[high], order[~high]
        else:
            order = order[len(order) // 2 :]
        return [torch.tensor(part) for part in (first, *np.array_split(order, CLIENTS - 1))]
    parts: list[list[int]] = [[] for _ in range(CLIENTS)]
    for digit in range(10):
        own = order[labels.numpy()[order] == digit]
        cuts = (np.cumsum(draw.dirichlet(np.full(CLIENTS, 0.5)))[:-1] * len(own)).astype(int)
        for part, piece in zip(parts, np.split(own, cuts), strict=True):
            part.extend(piece.tolist())
    least = draw.permutation(len(labels))[:CLIENTS]  # a client without an image has one
    return [torch.tensor(part or [int(one)]) for part, one in zip(parts, least, strict=True)]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


def record_of(model: nn.Module) -> ArrayRecord:
    return ArrayRecord({name: Array(v.numpy()) for name, v in model.state_dict().items()})


def load(model: nn.Module, arrays: ArrayRecord) -> nn.Module:
    found = {name: torch.tensor(array.numpy()) for name, array in arrays.items()}
    model.load_state_dict(found)
    return model


@final
class InProcessGrid(Grid):
    """Clients as functions of the model that is sent to them; node k is ``answer(k, ...)``."""

    def __init__(self, answer: Callable[[int, ArrayRecord], RecordDict], clients: int) -> None:
        self._answer, self._clients = answer, clients
        # Flower asks who the process is when a message is made; its own launcher sets this.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def set_run(self, run: Any) -> None:
        """Not needed here."""
        raise NotImplementedError("there is no run outside this process")

    @property
    def run(self) -> Any:
        """Not needed here."""
        raise NotImplementedError("there is no run outside this process")

    def create_message(self, *arguments: Any, **settings: Any) -> Message:
        """A message as Flower makes it."""
        return Message(*arguments, **settings)

    def get_node_ids(self) -> Iterable[int]:
        """1 to the number of clients."""
        return [*range(1, self._clients + 1)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not needed here."""
        raise NotImplementedError("use send_and_receive: nothing is queued")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not needed here."""
        raise NotImplementedError("use send_and_receive: nothing is queued")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """The answers of the clients, one after the other."""
        del timeout
        return [
            Message(
                self._answer(message.metadata.dst_node_id - 1, message.content["arrays"]),
                reply_to=message,
            )
            for message in messages
        ]


def train(model: nn.Module, images: Tensor, labels: Tensor, lr: float, seed: int) -> None:
    """One epoch of plain SGD."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for rows in order.split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()


def run(name: str, setting: Setting, digits: Digits, rounds: int, seed: int) -> dict[str, Any]:
    """Accuracy after each round, and what each client contributed."""
    torch.manual_seed(seed)
    random.seed(seed)  # Flower draws the order of the clients
    parts = split(setting, digits.labels, seed)
    model, norms, accuracies = network(), [], []

    def answer(client: int, arrays: ArrayRecord) -> RecordDict:
        local, rows = load(network(), arrays), parts[client]
        lr = LR * (setting.lr_factor if client == 0 else 1.0)
        draw = (seed * 1000 + len(norms)) * CLIENTS + client  # len(norms): the round
        train(local, digits.images[rows], digits.labels[rows], lr, seed=draw)
        after = record_of(local)
        before, new = ({k: a.numpy() for k, a in r.items()} for r in (arrays, after))
        norms[-1][client] = update_norm(before, new)
        return RecordDict({"arrays": after, "m": MetricRecord({"num-examples": len(rows)})})

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        with torch.no_grad():
            found = load(model, arrays)(digits.test_images).argmax(1) == digits.test_labels
        accuracies.append(found.double().mean().item())
        norms.append([0.0] * CLIENTS)
        return MetricRecord({"accuracy": accuracies[-1]})

    strategy = STRATEGIES[name]()
    strategy.start(InProcessGrid(answer, CLIENTS), record_of(model), rounds, evaluate_fn=evaluate)
    norms.pop()
    return {
        "strategy": name,
        "seed": seed,
        "accuracy": accuracies,
        "examples": [len(part) for part in parts],
        **pulls(strategy, np.array(norms), np.array([len(part) for part in parts], float)),
    }


def pulls(strategy: Any, norms: Any, examples: Any) -> dict[str, Any]:
    """Medians over rounds: norm, contribution and part of all contributions of client 0; imbalance.

    A median has no multipliers; its contributions are not defined.
    """
    if isinstance(strategy, FedMedian):
        return {"part": None, "imbalance": None, "norm_ratio": _ratio(norms)}
    multipliers = np.tile(examples / examples.sum(), (len(norms), 1))
    if isinstance(strategy, BalancedFedAvg):
        multipliers = np.array(
            [[seen.multipliers.get(k + 1, 0.0) for k in range(CLIENTS)] for seen in strategy.rounds]
        )
    known = np.where(np.isfinite(norms) & (multipliers != 0), norms, np.nan)
    pull = gaba.contributions(multipliers, known)
    parts = pull[:, 0] / np.nansum(pull, axis=1)
    return {
        "part": _median(parts),
        "imbalance": _median(gaba.imbalance(multipliers, known)),
        "norm_ratio": _ratio(norms),
    }


def _median(values: Any) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _ratio(norms: Any) -> float | None:
    """Client 0's norm over the median of the others'."""
    with np.errstate(all="ignore"):
        return _median(norms[:, 0] / np.median(norms[:, 1:], axis=1))


def rounds_to(goal: float, accuracy: list[float]) -> int | None:
    """The first round after which the accuracy is at least ``goal``."""
    return next((i for i, value in enumerate(accuracy) if value >= goal), None)


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| strategy | accuracy after the last round | rounds to "
        f"{GOAL:.0%} | client 0's part of all contributions | imbalance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in STRATEGIES:
        own = [r for r in runs if r["strategy"] == name]
        last = [100 * r["accuracy"][-1] for r in own]
        reached = [rounds_to(GOAL, r["accuracy"]) for r in own]
        spread = f"{np.mean(last):.1f} % ({min(last):.1f} to {max(last):.1f})"
        words = ", ".join("never" if r is None else str(r) for r in reached)
        part, unequal = (
            [r[key] for r in own if r[key] is not None] for key in ("part", "imbalance")
        )
        share = f"{np.median(part):.1%}" if part else "not defined"
        times = f"{np.median(unequal):,.1f}" if unequal else "not defined"
        lines.append(f"| {name} | {spread} | {words} | {share} | {times} |")
    return "\n".join(lines)


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    colours = dict(zip(STRATEGIES, COLOURS, strict=True))
    figure = Figure(figsize=(3.1 * len(results), 3.3), layout="constrained")
    axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for plot, (key, runs) in zip(axes, results.items(), strict=True):
        for name, colour in colours.items():
            mean = np.mean([r["accuracy"] for r in runs if r["strategy"] == name], axis=0)
            plot.plot(mean, color=colour, label=name)
        plot.set_title(SETTINGS[key].title.replace(": ", ":\n").replace(", alone", ",\nalone"))
        plot.title.set_fontsize(9)
        plot.set_xlabel("round")
        plot.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy, mean of seeds")
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's four files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a trial on simulated patterns")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    places = (
        [asked.data] if asked.data else [ROOT / "data/mnist", ROOT.parent / "shared/data/mnist"]
    )
    if asked.quick:
        digits = Digits.simulated(200, 100)
    else:
        folder = next((p for p in places if (p / "train-labels-idx1-ubyte.gz").is_file()), None)
        if folder is None:
            parser.error(f"no MNIST in {' or '.join(map(str, places))}: name its folder by --data")
        digits = Digits.read(folder, 4000, 2000)
    began = time.process_time()
    results = {
        key: [
            run(name, setting, digits, asked.rounds, seed)
            for name in STRATEGIES
            for seed in range(asked.seeds)
        ]
        for key, setting in SETTINGS.items()
    }
    seconds = time.process_time() - began
    write(asked, digits, results, seconds)


def write(
    asked: argparse.Namespace,
    digits: Digits,
    results: dict[str, list[dict[str, Any]]],
    seconds: float,
) -> None:
    """The page, its picture and the figures."""
    asked.out.mkdir(parents=True, exist_ok=True)
    what = "simulated patterns (a trial, not to be cited)" if asked.quick else "MNIST"
    sections = [
        f"## {SETTINGS[key].title.capitalize()}\n\n"
        f"Client 0's update is {_words(runs)} as long as the median of the others'.\n\n"
        f"{table(runs)}\n"
        for key, runs in results.items()
    ]
    page = f"""# Federated learning: clients weighted by inverse update norm

{len(digits.labels):,} training and {len(digits.test_labels):,} test images of {what} over
{CLIENTS} clients, a network 784-32-10, one local epoch of SGD (batch {BATCH}, learning rate {LR})
a round, {asked.rounds} rounds, {asked.seeds} seeds. Mean over seeds, with least and most; rounds
seed by seed; contributions and imbalance as medians over rounds and seeds.

![Accuracy by round](federated.png)

{chr(10).join(sections)}
Measured by `python benchmarks/federated.py --rounds {asked.rounds} --seeds {asked.seeds}` with
torch {torch.__version__.split("+")[0]} and flwr {metadata.version("flwr")}, one thread,
{seconds:.0f} s of CPU time in all.
"""
    (asked.out / "federated.md").write_text(page, encoding="utf-8")
    draw(results, asked.out / "federated.png")
    figures = {"settings": {k: asdict(v) for k, v in SETTINGS.items()}, "results": results}
    (asked.out / "federated.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    print(page)


def _words(runs: list[dict[str, Any]]) -> str:
    found = [r["norm_ratio"] for r in runs if r["norm_ratio"] is not None]
    return f"{np.median(found):.3g} times" if found else "never finite, so not"


if __name__ == "__main__":
    main()
