"""What the Balancer costs beyond the backward passes themselves, on the turbofan model.

    python benchmarks/overhead.py --threads 1

Times two training steps in turn, in random order, in one process, each on its own model. The bare
one is forward, K calls of ``torch.autograd.grad`` over all parameters, and a step of the optimizer
on gradients that nobody weighs or adds. The other is forward, ``balancer.backward`` and the same
step of the optimizer. All that the Balancer does is overhead, the combination of the gradients
included. The ratio is taken within each pair, so a busy machine slows both alike, and its median is
reported. A third step, with one backward pass of the sum of the losses, shows what K passes cost.
Writes ``docs/benchmarks/overhead.md``.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import gaba
from gaba import turbofan

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "overhead.md"
TARGET = 1.03
METHODS = {"gaba": "`gaba.Balancer`, the defaults", "paper": '`method="paper"`'}
WARM_UP = 10
BATCH = 128

Step = Callable[[], None]
Backward = Callable[[dict[str, Tensor]], object]


def make_step(
    batch: turbofan.Batch, backward_of: Callable[[turbofan.TurbofanNet], Backward]
) -> Step:
    """A step of training on a model of its own, with gradients from the function that is made."""
    torch.manual_seed(0)
    model = turbofan.TurbofanNet("small", dropout=turbofan.TrainConfig().dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    backward = backward_of(model)

    def step() -> None:
        backward(turbofan.losses(model(batch.inputs), batch))
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare(model: turbofan.TurbofanNet) -> Backward:
    """K passes, one a task; each parameter is handed the gradient of the last that reaches it."""
    leaves = list(model.parameters())

    def backward(losses: dict[str, Tensor]) -> None:
        *others, last = losses.values()
        for loss in (*others, last):
            found = torch.autograd.grad(
                loss, leaves, retain_graph=loss is not last, allow_unused=True
            )
            for leaf, gradient in zip(leaves, found, strict=True):
                leaf.grad = leaf.grad if gradient is None else gradient

    return backward


def summed(_: turbofan.TurbofanNet) -> Backward:
    """One pass, of the sum of the losses."""
    return lambda losses: sum(losses.values(), start=torch.zeros(())).backward()


def balanced(method: str) -> Callable[[turbofan.TurbofanNet], Backward]:
    """The Balancer of that method."""
    return lambda model: gaba.Balancer(turbofan.TASKS, model.backbone, method).backward


def pairs(one: Step, other: Step, count: int) -> list[tuple[float, float]]:
    """Seconds of ``count`` steps of each, taken in turn; which is first is drawn for each pair."""
    order = random.Random(0)
    steps = (one, other)
    for _ in range(WARM_UP):
        for step in steps:
            step()
    found: list[tuple[float, float]] = []
    for _ in range(count):
        taken = [0.0, 0.0]
        for i in order.sample((0, 1), k=2):
            began = time.perf_counter()
            steps[i]()
            taken[i] = time.perf_counter() - began
        found.append((taken[0], taken[1]))
    return found


def interval(ratios: list[float]) -> tuple[float, float]:
    """The middle 95 % of the medians of 2,000 resamples of the ratios."""
    drawn = random.Random(0)
    medians = [statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(2000)]
    cuts = statistics.quantiles(medians, n=40)
    return cuts[0], cuts[-1]


def row(name: str, found: list[tuple[float, float]]) -> str:
    """A row of the table: both steps, the median of the ratios, and how far they scatter."""
    milliseconds = [1000 * statistics.median(side) for side in zip(*found, strict=True)]
    ratios = [own / reference for reference, own in found]
    low, middle, high = statistics.quantiles(ratios, n=4)
    least, most = interval(ratios)
    return (
        f"| {name} | {milliseconds[0]:.1f} ms | {milliseconds[1]:.1f} ms | **{middle:.3f}** "
        f"| {least:.3f} to {most:.3f} | {low:.3f} to {high:.3f} |"
    )


def page(threads: int, count: int, batch: turbofan.Batch) -> str:
    """Measures, and says what was found."""
    rows, medians, load = [], [], os.getloadavg()[0]
    one_pass = pairs(make_step(batch, bare), make_step(batch, summed), count)
    for method, name in METHODS.items():
        found = pairs(make_step(batch, bare), make_step(batch, balanced(method)), count)
        medians.append(statistics.median(own / reference for reference, own in found))
        rows.append(row(name, found))
    rows.append(row("one backward pass of the summed losses", one_pass))
    word = "reached" if max(medians) < TARGET else "not reached"
    return f"""# What the Balancer costs beyond the backward passes

A step of the `small` turbofan model ({BATCH} windows, 2 tasks, AdamW) with a Balancer, against the
same step with nothing but one `torch.autograd.grad` a task over the same parameters.

| step | bare | this | median of the ratios | its 95 % interval | middle half of the ratios |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The target is a median below {TARGET}: **{word}**.

Measured by `python benchmarks/overhead.py --threads {threads} --pairs {count}` with torch
{torch.__version__.split("+")[0]} on the CPU with {threads} thread(s): {count} pairs of steps a row,
one step after the other in random order, the ratio within each pair. All that the Balancer does is
counted: norms, rule, stabilisers, combination of the gradients, record. In the bare step gradients
are handed to the optimizer as they come, neither weighed nor added. When it began, {load:.1f} other
processes were running on {os.cpu_count()} CPUs.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of steps for each method")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    inputs, rul = torch.randn(BATCH, 30, 17), 125 * torch.rand(BATCH)
    health = torch.bucketize(-rul, torch.tensor([-80.0, -30.0]))
    text = page(asked.threads, asked.pairs, turbofan.Batch(inputs, rul, health))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
