"""What knowing the shares of the update costs, and how right they are.

    python benchmarks/tracked.py                        # all models and K, about 25 minutes
    python benchmarks/tracked.py --models mlp vit --tasks 2 8 --seconds 10
    python benchmarks/tracked.py --device cuda          # the same on a GPU, and host syncs

Cost: a step is ``zero_grad``, forward pass and gradients, without the optimizer. Blocks of a method
and of the plain step are timed side by side, in an order that alternates; the ratio is taken within
each pair. Error: a model is trained by AdamW under the default method; in each measured step its
shares are compared with those from one backward pass a task on the same batch. Leave the machine
alone meanwhile. Writes ``docs/benchmarks/tracked.md`` and ``tracked.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _methods import METHODS
from torch import Tensor

import gaba
from _models import FULL, TINY, Batch, MultiTask, Spec
from gaba.measurement import ExactNorms
from gaba.measurement.cadence import BACKWARD, TURN, Cadence
from gaba.measurement.tracked import PRODUCTS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "tracked.md"
TASKS = (2, 3, 8, 40)
PRECISIONS = ("float32", "bfloat16")
BUDGET = 0.05
NEVER = 10**9
Step = Callable[[], None]


def on(batch: Batch, device: str) -> Batch:
    return type(batch)(*(part.to(device) for part in vars(batch).values()))


# ---- cost ---------------------------------------------------------------------------------------


def plain(model: MultiTask, batch: Batch) -> Step:
    """One backward pass of the sum."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        _, losses = model(batch)
        torch.stack(list(losses.values())).sum().backward()

    return step


def balanced(model: MultiTask, batch: Batch, method: Any, **settings: Any) -> Step:
    """A step with a Balancer of this method."""
    balancer = gaba.Balancer(model.tasks, model.trunk, method, **settings)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        _, losses = model(batch)
        balancer.backward(losses)

    step()
    return step


def autogram(model: MultiTask, batch: Batch) -> Step:
    """TorchJD's Gramian without the Jacobian, then a backward pass of the weighted sum."""
    return partial(METHODS["jd-autogram"].make(model), batch)


def steady(spec: Spec, k: int, batch: Batch, device: str) -> tuple[int, float]:
    """How many steps are between two measurements in the end, and the cost of one in steps."""
    model = spec.model(k).to(device)
    balancer = gaba.Balancer(model.tasks, model.trunk)
    for _ in range(3):
        model.zero_grad(set_to_none=True)
        balancer.backward(model(batch)[1])
    extra = balancer.get_extra_state()["cadence"]
    spent = [extra["spent"]]
    while balancer.get_extra_state()["cadence"]["made"] == extra["made"]:
        model.zero_grad(set_to_none=True)
        balancer.backward(model(batch)[1])
    cost = balancer.get_extra_state()["cadence"]["spent"] - spent[0]
    return math.ceil(cost / BUDGET), cost


def ways() -> dict[str, tuple[Callable[[MultiTask, Batch], Step], int]]:
    """The steps to time, and over how many of them each is averaged."""
    exact = gaba.methods.get("gaba", measure="exact")
    products = gaba.methods.get("gaba", engine="products")
    first = gaba.methods.get("gaba", measure=ExactNorms("stream"))
    return {
        "again": (plain, 4),
        "idle": (lambda m, b: balanced(m, b, "gaba", every=NEVER), 4),
        "measuring": (lambda m, b: balanced(m, b, "gaba", every=1), TURN),
        "products": (lambda m, b: balanced(m, b, products, every=1), TURN),
        "exact every step": (lambda m, b: balanced(m, b, exact), 1),
        "exact, streamed": (lambda m, b: balanced(m, b, first), 1),
        "FAMO": (lambda m, b: balanced(m, b, "famo"), 4),
        "TorchJD autogram": (autogram, 1),
    }


def cost(
    spec: Spec, k: int, seconds: float, device: str, only: Collection[str], before: dict[str, Any]
) -> dict[str, Any]:
    """Ratios to the plain step, by method: medians with quartiles; others stay as before."""
    batch = on(spec.batches(k, spec.batch)(0), device)
    every, counted = steady(spec, k, batch, device)
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    reference = plain(spec.model(k).to(device), batch)
    for _ in range(3):
        reference()

    def block(step: Step, n: int) -> float:
        sync()
        began = time.perf_counter()
        for _ in range(n):
            step()
        sync()
        return (time.perf_counter() - began) / n

    found: dict[str, Any] = {
        **before,
        "every": every,
        "counted": counted,
        "plain_ms": 1e3 * block(reference, 4),
    }
    for name, (make, n) in ways().items():
        if name not in only:
            continue
        try:
            step = make(spec.model(k).to(device), batch)
            for _ in range(6):  # beyond the reruns of the first probes
                step()
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
            continue
        ratios: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(ratios) < 5:
            if len(ratios) % 2:
                own, beside = block(step, n), block(reference, n)
            else:
                beside, own = block(reference, n), block(step, n)
            ratios.append(own / beside)
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        found[name] = {"ratio": middle, "quartiles": [low, high], "pairs": len(ratios)}
        if device == "cuda" and name in ("again", "idle"):
            found[name]["syncs"] = syncs(step)
    idle = found["idle"]["ratio"]
    measured, products, first = (
        max(found[name]["ratio"] - idle, 0.0)
        for name in ("measuring", "products", "exact, streamed")
    )
    found["default"] = {"ratio": idle + measured / every}
    found["at its cadence"] = {"ratio": idle + products / every}
    times = first_thousand(k, counted)
    found["first 1,000"] = {"ratio": idle + (times * measured + first) / 1000}
    return found


def first_thousand(k: int, counted: float) -> int:
    """How often the cadence measures along the update in the first 1,000 steps."""
    cadence, times = Cadence(spent=PRODUCTS * BACKWARD * k, due=1), 0
    for step in range(1, 1000):
        if step >= cadence.due:
            cadence, times = cadence.moved(step, counted, BUDGET), times + 1
    return times


def syncs(step: Step) -> int:
    """How often one step on a GPU makes the host wait for it."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in heard)


# ---- error --------------------------------------------------------------------------------------


def exact_shares(model: MultiTask, losses: dict[str, Tensor], multipliers: Tensor) -> Tensor:
    """s_k from one backward pass a task."""
    theta = list(model.trunk.parameters())
    rows = []
    for loss in losses.values():
        row = torch.autograd.grad(loss, theta, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([g.double().flatten() for g in row if g is not None]))
    stacked = torch.stack(rows)
    products = stacked @ (multipliers @ stacked)
    return multipliers * products / (multipliers @ products)


def error(
    spec: Spec,
    k: int,
    device: str,
    *,
    autocast: bool,
    apart: bool,
    engine: str = "probe",
    steps: int,
) -> dict[str, Any]:
    """Root mean square of log s_k − log of the exact one, over tasks with K s_k > 0.01."""
    model = spec.model(k).to(device)
    method = gaba.methods.get("gaba", engine=engine, limit=1.0 if apart else 1000.0)
    balancer = gaba.Balancer(model.tasks, model.trunk, method, every=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = spec.batches(k, spec.training_batch)
    squares: list[float] = []
    wrong = heard = believed = 0
    for number in range(steps):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            _, losses = model(on(batches(number), device))
        if apart:
            losses = {n: (500.0 if i == 0 else 1.0) * v for i, (n, v) in enumerate(losses.items())}
        optimizer.zero_grad()
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        measured = number > steps // 2 and number % 4 == 0  # near balance, unless held apart
        truth = exact_shares(model, losses, multipliers.to(device)).cpu() if measured else None
        step = balancer.backward(losses)
        optimizer.step()
        if truth is None or step.engine != engine:
            continue
        believed += 1
        for mine, true in zip(step.shares.cpu().tolist(), truth.tolist(), strict=True):
            if abs(k * true) > 0.01:
                heard += 1
                wrong += mine * true <= 0
                if mine * true > 0:
                    squares.append(math.log(mine / true) ** 2)
    rms = math.sqrt(statistics.fmean(squares)) if squares else math.nan
    return {"rms": rms, "wrong signs": wrong, "of": heard, "measured": believed}


# ---- the page -----------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cost_table(results: dict[str, Any]) -> str:
    names = ["again", "idle", "measuring", "default", "first 1,000", "at its cadence"]
    names += ["exact every step", "FAMO", "TorchJD autogram"]
    heads = ["model", "K", "every", *names]
    rows = [heads, ["---"] * len(heads)]
    for key, found in results.items():
        model, k = key.split("/")
        cells = [
            f"{found[n]['ratio']:.3f}" if "ratio" in found[n] else "fails"
            for n in names
            if n in found
        ]
        rows.append([FULL[model].title, k, str(found["every"]), *cells])  # type: ignore[index]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(rms: float) -> str:
    return "–" if math.isnan(rms) else f"{rms:.4f}"


def error_table(results: dict[str, Any]) -> str:
    kinds = ["float32", "bfloat16", "float32, 500 to 1", "bfloat16, 500 to 1"]
    rows = [["model", "K", *kinds, "wrong signs"], ["---"] * 7]
    for key, found in results.items():
        model, k = key.split("/")
        cells = [shown(found[kind]["rms"]) if kind in found else "" for kind in kinds]
        wrong = sum(part["wrong signs"] for part in found.values())
        of = sum(part["of"] for part in found.values())
        rows.append([FULL[model].title, k, *cells, f"{wrong} of {of:,}"])  # type: ignore[index]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def spread(ratios: list[float]) -> str:
    """The median, and the largest."""
    return f"{statistics.median(ratios):.3f} ({max(ratios):.3f})"


def page(results: dict[str, Any]) -> str:
    """The page from the stored results."""
    costs, errors = results["cost"], results["error"]
    made = results["machine"]
    default, first, idle, noise = (
        spread([found[name]["ratio"] for found in costs.values()])
        for name in ("default", "first 1,000", "idle", "again")
    )
    exact = [found["float32"]["rms"] for found in errors.values()]
    believed = [found["bfloat16"]["rms"] for found in errors.values() if "bfloat16" in found]
    coarse = [rms for rms in believed if not math.isnan(rms)]
    under = "Under bfloat16 (aim: 0.2) it was not measured."
    if believed:
        under = (
            f"Under bfloat16 (aim: 0.2) {len(coarse)} of {len(believed)} cells have probes that "
            "pass their own checks"
            + (f", off by **{spread(coarse)}**" if coarse else "")
            + "; elsewhere gradients take their place."
        )
    return f"""# What knowing the shares costs, and how right they are

Over a plain step, the median over models and numbers of tasks and in brackets the largest: the
default costs **{default}** in its steady cadence (aim: 1.05), **{first}** over the first 1,000
steps (aim: 1.10), and **{idle}** in a step without a measurement (aim: 1.01). The plain step
against itself is {noise}: differences below that are noise of the machine.

Near balance the probe's shares are off by **{spread(exact)}** in float32 (aim: 0.05), as a root
mean square of log s. {under}

Measured by `python benchmarks/tracked.py`.

## Cost

A whole step without the optimizer, over a plain step: medians of pairs. *again* is the plain step
timed against itself, so it shows the noise. *idle* is a step of the default that measures nothing,
*measuring* one that measures, every fourth with a gradient to check the probe. *every* is the
cadence that a budget of 0.05 comes to. *default* is idle + (measuring − idle)/every, and *first
1,000* the same with the denser beginning. *at its cadence* measures from gradients as often as the
default does. Up to K = 2 the default measures from gradients itself, beyond that by the probe.

{cost_table(costs)}

## Error

Shares of the default against one backward pass a task on the same batch, in the same precision,
over tasks with K s_k > 0.01: root mean square of log s_k. The probe in every fourth step of
the second half of training by AdamW: near balance (limit 1,000), and with one loss 500 times as
loud and all multipliers held at 1. A dash: the probe did not pass its checks, so gradients took
its place. An empty cell was not measured.

{error_table(errors)}

Measured with torch {made["torch"]} on {made["device"]}, {made["threads"]} thread(s), batch sizes as
in `benchmarks/_models.py`; error over {results["steps"]} steps a cell.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(FULL), choices=list(FULL))
    parser.add_argument("--tasks", nargs="+", type=int, default=list(TASKS))
    parser.add_argument("--seconds", type=float, default=6.0, help="for each method of a cell")
    parser.add_argument("--steps", type=int, default=60, help="of training for each error")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--quick", action="store_true", help="a trial with tiny models, not to cite"
    )
    parser.add_argument("--only", choices=["cost", "error"])
    parser.add_argument(
        "--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS, help="of the error"
    )
    parser.add_argument(
        "--ways", nargs="+", default=list(ways()), choices=list(ways()), help="which to time"
    )
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    specs = TINY if asked.quick else FULL
    store = asked.out.with_suffix(".json")
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for part in ("cost", "error"):
        results.setdefault(part, {})
    results["steps"] = asked.steps
    results["machine"] = {
        "torch": torch.__version__.split("+")[0],
        "device": torch.cuda.get_device_name() if asked.device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for model in asked.models:
        for k in asked.tasks:
            key = f"{model}/{k}"
            with quiet():
                if asked.only != "error":
                    before = results["cost"].get(key, {})
                    results["cost"][key] = cost(
                        specs[model], k, asked.seconds, asked.device, asked.ways, before
                    )
                if asked.only != "cost":
                    results["error"].setdefault(key, {}).update(
                        (
                            f"{precision}{far}",
                            error(
                                specs[model],
                                k,
                                asked.device,
                                autocast=precision == "bfloat16",
                                apart=bool(far),
                                steps=asked.steps,
                            ),
                        )
                        for precision in asked.precisions
                        for far in ("", ", 500 to 1")
                    )
            store.write_text(json.dumps(results, indent=1) + "\n")
            print(key, flush=True)
    if results["cost"] and results["error"]:
        asked.out.write_text(page(results))
        print(page(results))


if __name__ == "__main__":
    main()
