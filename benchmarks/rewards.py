"""Reward components balanced on the trunk of a Q network, on deep-sea-treasure.

    python benchmarks/rewards.py

Uniform and fixed weights against inverse norms, in the units of the environment and with the
treasure in hundreds (and the preference for it a hundred times as high). That is the same problem
for the agent and another one for its optimizer. Each runs twice: as usual, and with heads that
begin near 0 and a fresher target network. Writes ``docs/results/rewards.md``, its picture and its
figures.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, final

import gymnasium
import mo_gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

import gaba
from gaba.domains.rewards import Run, Settings, train
from gaba.rules import InverseNorm, Targets

ROOT = Path(__file__).resolve().parents[1]
PREFERENCE = np.array([0.5, 0.5])
LARGEST = np.array([23.7, 1.0])
UNITS = {"units of the environment": (1.0, 1.0), "treasure in hundreds": (0.01, 1.0)}
LEARNING = {
    "usual": {},
    "small first heads, fresh target": {"head_scale": 0.01, "sync": 100},
}
CASES = {f"{unit}, {how}": (unit, how) for how in LEARNING for unit in UNITS}
COLOURS = {"uniform": "#000000", "fixed": "#E69F00", "balanced": "#0072B2"}


def method(name: str, units: Any) -> gaba.Method:
    """By name; at power 0 a rule gives the same weights whatever the norms, which it records."""
    fixed = (LARGEST * units) ** -2.0
    return {
        "uniform": gaba.Method(InverseNorm(power=0)),
        "fixed": gaba.Method(Targets(tuple(fixed / fixed.sum()), InverseNorm(power=0)), limit=None),
        "balanced": gaba.methods.get("inverse"),
    }[name]


@final
class InUnits(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment with each reward component counted in another unit."""

    def __init__(self, env: Any, units: tuple[float, ...]) -> None:
        super().__init__(env)
        self._units = np.array(units)

    def step(self, action: Any) -> Any:
        """As the environment's, with the reward in these units."""
        state, reward, *rest = self.env.step(action)
        return (state, np.asarray(reward) * self._units, *rest)


def environment() -> Any:
    with warnings.catch_warnings():  # about the precision of its own bounds
        warnings.simplefilter("ignore")
        return mo_gymnasium.make("deep-sea-treasure-v0")  # pyright: ignore[reportPrivateImportUsage]


def result(name: str, case: str, run: Run, units: Any) -> dict[str, Any]:
    """In the units of the environment."""
    found, foretold = run.discounted / units, run.foretold / units
    history = run.history
    return {
        "weighting": name,
        "case": case,
        "returns": (run.greedy / units).tolist(),
        "value": float(found @ PREFERENCE),
        "error": np.abs(foretold - found).tolist(),
        "learning": ((run.returns / units) @ PREFERENCE).tolist(),
        "weight": float(history.weights[:, 0].mean()),
        "norms": np.median(history.norms, axis=0).tolist(),
        "imbalance": float(np.median(history.imbalance)),
    }


def table(runs: list[dict[str, Any]], best: float) -> str:
    lines = [
        f"| weights | value of the last policy (best possible {best:.2f}), seed by seed "
        "| mean of the last 20 episodes of learning, undiscounted, seed by seed "
        "| treasure, time: mean return | error of the foretold return: treasure, time "
        "| mean weight of the treasure | imbalance |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in COLOURS:
        own = [run for run in runs if run["weighting"] == name]
        values = ", ".join(f"{run['value']:.2f}" for run in own)
        late = ", ".join(f"{np.mean(run['learning'][-20:]):.1f}" for run in own)
        returns, errors = (np.mean([run[k] for run in own], axis=0) for k in ("returns", "error"))
        weight, unequal = (np.median([run[k] for run in own]) for k in ("weight", "imbalance"))
        lines.append(
            f"| {name} | {values} | {late} | {returns[0]:.1f}, {returns[1]:.1f} "
            f"| {errors[0]:.2f}, {errors[1]:.2f} | {weight:.3f} | {unequal:.1f} |"
        )
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path, best: float) -> None:
    figure = Figure(figsize=(9.5, 6.0), layout="constrained")
    axes = figure.subplots(len(LEARNING), len(UNITS), sharey=True).ravel()
    for plot, case in zip(axes, CASES, strict=True):
        for shift, (name, colour) in enumerate(COLOURS.items()):
            values = [r["value"] for r in runs if (r["weighting"], r["case"]) == (name, case)]
            at = np.arange(len(values)) + 0.22 * (shift - 1)
            plot.bar(at, values, width=0.2, color=colour, label=name)
        plot.axhline(best, color="#595959", linewidth=0.8, linestyle="--", label="best possible")
        plot.axhline(0, color="#595959", linewidth=0.8)
        plot.set_title(case, fontsize=10)
        plot.set_xlabel("seed")
        plot.set_xticks(sorted({run["seed"] for run in runs}))
        plot.spines[["top", "right"]].set_visible(False)
    for plot in axes[:: len(UNITS)]:
        plot.set_ylabel("value of the last policy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    env = environment()
    front = np.array(env.unwrapped.pareto_front(gamma=Settings().gamma))
    best = float((front @ PREFERENCE).max())
    runs: list[dict[str, Any]] = []
    began = time.process_time()
    for case, (unit, how) in CASES.items():
        units = UNITS[unit]
        preference: dict[str, float] = dict(
            zip(("treasure", "time"), PREFERENCE / np.array(units), strict=True)
        )
        for seed in range(asked.seeds):
            for name in COLOURS:
                settings = Settings(steps=asked.steps, seed=seed, **LEARNING[how])
                run = train(
                    InUnits(env, units),
                    preference,
                    settings=settings,
                    method=method(name, np.array(units)),
                )
                runs.append({"seed": seed, **result(name, case, run, np.array(units))})
                print(case, seed, name, round(runs[-1]["value"], 2), flush=True)
    write(asked, runs, best, time.process_time() - began)


def write(
    asked: argparse.Namespace, runs: list[dict[str, Any]], best: float, seconds: float
) -> None:
    """The page, its picture and the figures."""
    asked.out.mkdir(parents=True, exist_ok=True)
    sections = [
        f"## {case.capitalize()}\n\n{table([r for r in runs if r['case'] == case], best)}\n"
        for case in CASES
    ]
    page = f"""# Reward components balanced on the trunk of a Q network

`deep-sea-treasure-v0` of mo-gymnasium: treasure and time, preference ½ each, {asked.steps:,} steps,
one update (Adam 1e-3, batch {Settings().batch}) every {Settings().every} steps, {asked.seeds}
seeds. The target network is copied every {Settings().sync} updates ("usual"), or every 100 with
first weights of the heads at a hundredth ("small first heads, fresh target"). "Fixed" weights are
inverse to the square of the largest reward of each component. The value is the discounted return of
the last policy without exploration, in the units of the environment, weighed by the preference
(-31.70: an episode that never ends); the error is that of Q_c at the start of that episode, mean of
seeds; the weight is that of the treasure's loss, and the imbalance that of the contributions on the
trunk, both medians over seeds.

What is equal under "balanced" is how hard each component's loss pulls on the trunk, not how much
the component matters to the agent: that is the preference.

![Value of the last policy by seed](rewards.png)

{chr(10).join(sections)}
Measured by `python benchmarks/rewards.py --steps {asked.steps} --seeds {asked.seeds}` with torch
{torch.__version__.split("+")[0]} and mo-gymnasium {metadata.version("mo-gymnasium")}, one thread,
{seconds:.0f} s of CPU time in all.
"""
    (asked.out / "rewards.md").write_text(page, encoding="utf-8")
    (asked.out / "rewards.json").write_text(json.dumps(runs) + "\n", encoding="utf-8")
    draw(runs, asked.out / "rewards.png", best)
    print(page)


if __name__ == "__main__":
    main()
