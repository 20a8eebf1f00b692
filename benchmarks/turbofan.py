"""Trains the turbofan grid (subsets × methods × seeds) and writes the table of its test errors.

    python benchmarks/turbofan.py                 # run what is missing, then write the table
    python benchmarks/turbofan.py --table-only    # write the table from the runs that are there

Safe to interrupt: run it again to resume. Finished runs, and figures of the same settings and
version in ``docs/results/turbofan.json``, are not repeated, unless you give ``--fresh``. The runs
are in ``--runs``, the table in ``docs/results/turbofan.md`` and between the marks in README.md, and
the README's picture in ``docs/images/``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import torch

import gaba
from gaba import turbofan
from gaba.turbofan import plots
from gaba.turbofan.train import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
WRITTEN = RESULTS / "turbofan.json"
PICTURE = ROOT / "docs" / "images" / "turbofan_balance.png"
SHOWN = "FD001-gaba-0"
"""The run that the picture shows."""
SUBSETS = ("FD001", "FD002", "FD003", "FD004")
NAMES = {
    "gaba": "`gaba` (the default)",
    "paper": "`paper`",
    "inverse": "`inverse`",
    "uniform": "uniform 1/1",
    "fixed:0.0952,1.9048": "fixed 0.0952/1.9048",
}
METHODS = tuple(NAMES)
MARKS = ("<!-- results:start -->", "<!-- results:end -->")


def written() -> list[dict[str, Any]]:
    """The runs in the JSON; those of 0.1.0 name no version."""
    return json.loads(WRITTEN.read_text()) if WRITTEN.is_file() else []


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the outcome of a run, apart from where its files are."""
    return {k: v for k, v in asdict(config).items() if k not in ("run_dir", "data_dir")}


def run(
    subset: str, method: str, seed: int, runs: Path, data_dir: str | None, known: list[Any]
) -> dict[str, Any]:
    """One training, or what is left of it; its metrics and what the balancer did."""
    torch.set_num_threads(1)
    folder = runs / f"{subset}-{method.replace(':', '-').replace(',', '-')}-{seed}"
    config = TrainConfig(
        subset=subset, method=method, seed=seed, run_dir=str(folder), data_dir=data_dir
    )
    done = folder / "result.json"
    for earlier in known:
        if not done.is_file() and earlier["settings"] == settings_of(config):
            return earlier
    if not done.is_file():
        result = turbofan.train(config, resume=(folder / "config.json").is_file())
        test = result.metrics["test"]
        found = {
            "gaba": gaba.__version__,
            "subset": subset,
            "method": method,
            "seed": seed,
            "steps": result.steps,
            "chosen_at": result.best.step,
            "validation_rmse": result.best.rmse,
            "capped": test["capped"],
            "raw": test["raw"],
            "accuracy": test["health"]["accuracy"],
            "macro_f1": test["health"]["macro_f1"],
            "settings": settings_of(config),
            **behaviour(gaba.History.read(folder / "history.jsonl")),
        }
        done.write_text(json.dumps(found, indent=1))
        best = result.best.rmse
        print(f"{folder.name}: validation {best:.2f}, {result.seconds:.0f} s", flush=True)
    return json.loads(done.read_text())


def behaviour(history: gaba.History) -> dict[str, Any]:
    """What the balancer did: weights at the end, saturation, norm ratio and imbalance."""
    measured = history.measured & history.finite
    norms = history.norms[measured]
    ratio = norms.max(1) / norms.min(1) if len(norms) else []
    return {
        "final_weights": dict(zip(history.tasks, history.weights[-1].tolist(), strict=True)),
        "saturated": float(history.saturated.any(1).mean()),
        "median_norm_ratio": statistics.median(ratio) if len(ratio) else None,
        "median_imbalance": statistics.median(history.imbalance[measured]) if len(ratio) else None,
    }


def spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation over the seeds."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):  # a NASA score too large for a number
        return "infinite"
    if len(known) < 2:
        return f"{known[0]:.2f}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


def table(found: list[dict[str, Any]]) -> str:
    """The Markdown table of test errors, a row for each subset and method."""
    rows = [
        "| subset | method | RMSE, capped | NASA, capped | RMSE, raw | NASA, raw | accuracy "
        "| macro-F1 | saturated steps |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for subset, method in product(SUBSETS, METHODS):
        own = [r for r in found if (r["subset"], r["method"]) == (subset, method)]
        if not own:
            continue
        cells = [
            subset,
            NAMES[method],
            spread([r["capped"]["rmse"] for r in own]),
            spread([r["capped"]["score"] for r in own]),
            spread([r["raw"]["rmse"] for r in own]),
            spread([r["raw"]["score"] for r in own]),
            spread([100 * r["accuracy"] for r in own]) + " %",
            spread([r["macro_f1"] for r in own]),
            f"{100 * statistics.mean(r['saturated'] for r in own):.0f} %",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def verdict(found: list[dict[str, Any]]) -> str:
    """In words: whether the methods differ by more than their seeds do."""
    lines = []
    for subset in SUBSETS:
        by_method = {
            m: [r["capped"]["rmse"] for r in found if (r["subset"], r["method"]) == (subset, m)]
            for m in METHODS
        }
        by_method = {m: v for m, v in by_method.items() if len(v) > 1}
        if len(by_method) < 2:
            continue
        means = {m: statistics.mean(v) for m, v in by_method.items()}
        best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        apart = means[worst] - means[best]
        noise = math.sqrt(statistics.mean(statistics.variance(v) for v in by_method.values()))
        word = "tie" if apart <= 2 * noise else "differ"
        lines.append(
            f"- {subset}: the methods **{word}**. From best ({NAMES[best]}) to worst "
            f"({NAMES[worst]}) it is {apart:.2f} cycles; seeds of one method differ by {noise:.2f} "
            "(one standard deviation)."
        )
    return "\n".join(lines)


def picture(folder: Path) -> None:
    """Draws the README's picture from a run: weights, norms and contributions over its steps."""
    metrics = json.loads((folder / "metrics.json").read_text())
    caption = plots.Caption(
        metrics["subset"],
        metrics["method"],
        metrics["test"]["capped"]["rmse"],
        simulated=metrics["simulated"],
    )
    plots.save(plots.balance(gaba.History.read(folder / "history.jsonl"), caption), PICTURE)


def whole_seeds(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of those seeds for which every subset and method has run, if there are any."""
    grid = {(r["subset"], r["method"]) for r in found}
    own = {
        s: {(r["subset"], r["method"]) for r in found if r["seed"] == s} for s in seeds_of(found)
    }
    whole = {seed for seed, made in own.items() if made == grid}
    return [r for r in found if r["seed"] in whole] or found


def seeds_of(found: list[dict[str, Any]]) -> set[int]:
    """The seeds among the runs."""
    return {r["seed"] for r in found}


def write(found: list[dict[str, Any]]) -> None:
    """The JSON of all runs; the page and the block in the README of the seeds that are whole.

    The JSON keeps the runs of other versions, which mean other things by the same names.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    others = [earlier for earlier in written() if earlier.get("gaba") != gaba.__version__]
    WRITTEN.write_text(json.dumps([*others, *found], indent=1) + "\n")
    found = whole_seeds(found)
    seeds = len(seeds_of(found))
    numbers = " ".join(str(seed) for seed in sorted(seeds_of(found)))
    body = (
        "Test error of the `small` model on NASA C-MAPSS, mean ± standard deviation over "
        f"{seeds} seeds: last window of each test engine, model chosen on the validation engines. "
        "RMSE in cycles; NASA score, lower is better.\n\n"
        f"{table(found)}\n\n"
        "Methods tie where the best and the worst mean are within two standard deviations of the "
        f"seeds.\n\n{verdict(found)}\n\n"
        f"Measured by `python benchmarks/turbofan.py --seeds {numbers}` with torch "
        f"{torch.__version__.split('+')[0]}, one CPU thread a run; every figure of every run is in "
        "[docs/results/turbofan.json](docs/results/turbofan.json)."
    )
    page = body.replace("(docs/results/turbofan.json)", "(turbofan.json)")
    (RESULTS / "turbofan.md").write_text(f"# Turbofan: measured results\n\n{page}\n")
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "grid")
    parser.add_argument("--subsets", nargs="+", default=SUBSETS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--data-dir")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    parser.add_argument("--fresh", action="store_true", help="forget the figures written before")
    asked = parser.parse_args()
    if asked.table_only:
        found = [json.loads(path.read_text()) for path in sorted(asked.runs.glob("*/result.json"))]
    else:
        known = [] if asked.fresh else [r for r in written() if r.get("gaba") == gaba.__version__]
        grid = product(asked.seeds, asked.subsets, asked.methods)
        found = joblib.Parallel(n_jobs=asked.jobs)(
            joblib.delayed(run)(subset, method, seed, asked.runs, asked.data_dir, known)
            for seed, subset, method in grid
        )
    if (shown := asked.runs / SHOWN / "metrics.json").is_file():
        picture(shown.parent)
    if found:
        write(sorted(found, key=lambda r: (r["subset"], METHODS.index(r["method"]), r["seed"])))


if __name__ == "__main__":
    main()
