"""A small YOLOS on generated shapes: its own loss coefficients against balanced losses.

    python benchmarks/detection.py

Class, box and overlap losses are balanced on the backbone, in the Trainer of Transformers. The
baseline is the same Trainer with the model's own coefficients. pycocotools gives the mean average
precision on new images. Writes ``docs/results/detection.md``, its picture and its figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import TrainingArguments, set_seed

import gaba
from gaba.domains import detection

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"own coefficients": ":", "balanced": "-"}
COLOURS = ("#0072B2", "#E69F00", "#009E73")
IMAGES, TEST_IMAGES, BATCH, LR, WARM_UP = 2000, 300, 16, 2e-3, 50


def run(method: str, steps: int, seed: int, images: int, test_images: int) -> dict[str, Any]:
    """Train one model, and measure it on images of its own."""
    set_seed(seed)
    model = detection.small_yolos()
    own = detection.own_coefficients(model.config)
    balanced = "inverse" if method == "balanced" else own
    balancer = gaba.Balancer(detection.TASKS, model.vit, balanced)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            lr_scheduler_type="cosine",
            warmup_steps=WARM_UP,
            seed=seed,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        data: Any = {
            "train_dataset": detection.shapes(images, most=1, seed=1),
            "data_collator": detection.collate,
        }
        detection.DetectionTrainer(model, arguments, balancer=balancer, **data).train()
    test = detection.shapes(test_images, most=1, seed=2)
    model.eval()
    with torch.no_grad():
        found = model(**detection.collate(test)).loss_dict
        test_losses = [loss.item() for loss in detection.task_losses(found).values()]
    kept = max(1, steps // 100)
    history = balancer.history
    return {
        "method": method,
        "seed": seed,
        **detection.average_precision(model, test),
        "test_losses": test_losses,
        "imbalance": float(np.median(history.imbalance)),
        "weights": _means(history.weights, kept),
        "contributions": _means(history.contributions, kept),
        "losses": _means(history.losses, kept),
    }


def _means(rows: Any, every: int) -> list[list[float]]:
    """The mean over every so many steps."""
    whole = len(rows) // every * every
    return rows[:whole].reshape(-1, every, rows.shape[1]).mean(1).round(6).tolist()


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| losses weighted by | mAP, seed by seed | mAP50, seed by seed "
        "| test losses: class, box, overlap | mean weights: class, box, overlap "
        "| parts of all contributions | imbalance |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        own = [r for r in runs if r["method"] == method]
        scores = (
            ", ".join(f"{100 * r[key]:.1f} %" for r in own)
            + f" (mean {100 * np.mean([r[key] for r in own]):.1f} %)"
            for key in ("mAP", "mAP50")
        )
        losses = _numbers(np.mean([r["test_losses"] for r in own], axis=0))
        weights = _numbers(np.mean([np.mean(r["weights"], axis=0) for r in own], axis=0))
        pull = np.mean([np.mean(r["contributions"], axis=0) for r in own], axis=0)
        apart = np.median([r["imbalance"] for r in own])
        lines.append(
            f"| {method} | {' | '.join(scores)} | {losses} | {weights} "
            f"| {_numbers(pull / pull.sum())} | {apart:.1f} |"
        )
    return "\n".join(lines)


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def draw(runs: list[dict[str, Any]], steps: int, path: Path) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = {
        "contributions": "Parts of all contributions",
        "weights": "Weights",
        "losses": "Losses while training",
    }
    for plot, (key, title) in zip(axes, titles.items(), strict=True):
        for method, style in METHODS.items():
            mean = np.mean([r[key] for r in runs if r["method"] == method], axis=0)
            if key == "contributions":
                mean = mean / mean.sum(1, keepdims=True)
            at = (np.arange(len(mean)) + 1) * steps / len(mean)
            for k, task in enumerate(detection.TASKS):
                plot.plot(at, mean[:, k], style, color=COLOURS[k], label=f"{task}, {method}")
        plot.set_title(title, fontsize=10)
        plot.set_xlabel("step")
        plot.set_ylim(bottom=0)
        plot.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images; a trial, not to cite")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images, test_images = (64, 20) if asked.quick else (IMAGES, TEST_IMAGES)
    began = time.process_time()
    runs: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        for method in METHODS:
            runs.append(run(method, asked.steps, seed, images, test_images))
            print(method, seed, round(runs[-1]["mAP"], 4), round(runs[-1]["mAP50"], 4), flush=True)
    seconds = time.process_time() - began
    asked.out.mkdir(parents=True, exist_ok=True)
    trial = "**A trial on few images: not to be cited.** " if asked.quick else ""
    page = f"""# Detection: class, box and overlap losses balanced on the backbone

{trial}A YOLOS of two layers and width 48, from random weights, on {images:,} generated images of
64 × 64 pixels with one disc, square or triangle; {asked.steps:,} steps of AdamW (batch {BATCH},
rate {LR:g}, cosine, warm-up {WARM_UP}, gradients clipped at 1), {asked.seeds} seeds; measured on
{test_images} other images. Both run in the Trainer of Transformers through
`gaba.domains.detection.DetectionTrainer`; "own coefficients" are the model's 1, 5 and 2, and the
matching keeps its own in both. mAP is COCO's (0.50 to 0.95) by pycocotools.

{table(runs)}

What is equal under "balanced" is how hard each loss pulls on the backbone: box and overlap, which
both want good boxes, have two thirds of it together. The cardinality error, a count without a
gradient, is not balanced.

![Contributions, weights and losses by step, means of the seeds](detection.png)

Measured by `python benchmarks/detection.py --steps {asked.steps} --seeds {asked.seeds}` with torch
{torch.__version__.split("+")[0]}, transformers {metadata.version("transformers")} and pycocotools
{metadata.version("pycocotools")}, one thread, {seconds:.0f} s of CPU time in all.
"""
    (asked.out / "detection.md").write_text(page, encoding="utf-8")
    (asked.out / "detection.json").write_text(json.dumps(runs) + "\n", encoding="utf-8")
    draw(runs, asked.steps, asked.out / "detection.png")
    print(page)


if __name__ == "__main__":
    main()
