"""A small YOLOS on generated shapes, in the Trainer: a few steps, too few for a good detector."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import gaba
from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save

STEPS = 40


def main(folder: Path) -> None:
    from transformers import PrinterCallback, TrainingArguments, set_seed

    from gaba.domains import detection

    examples, unseen = detection.shapes(200, most=2), detection.shapes(50, most=2, seed=1)
    found, apart = [], []
    figure, (left, right) = panels("Contributions on the backbone", "Two images, their boxes")
    for name, style in (("own coefficients", ":"), ("balanced", "-")):
        set_seed(0)
        model = detection.small_yolos()
        own = detection.own_coefficients(model.config)
        method = "gaba" if name == "balanced" else own
        balancer = gaba.Balancer(detection.TASKS, shared=model.vit, method=method)
        with tempfile.TemporaryDirectory() as scratch:
            settings: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True}
            settings |= {"save_strategy": "no", "remove_unused_columns": False}
            settings |= {"max_steps": STEPS, "learning_rate": 1e-3, "logging_strategy": "no"}
            arguments = TrainingArguments(output_dir=scratch, **settings)
            data: Any = {"train_dataset": examples, "data_collator": detection.collate}
            trainer = detection.DetectionTrainer(model, arguments, balancer=balancer, **data)
            trainer.remove_callback(PrinterCallback)  # it prints a dictionary of times
            trainer.train()
        history = balancer.history
        found.append(detection.average_precision(model, unseen)["mAP50"])
        apart.append(float(np.nanmedian(history.imbalance)))
        known = history.steps[history.measured]
        pulls = history.contributions[history.measured]
        for k, task in enumerate(detection.TASKS):
            pull = pulls[:, k] / pulls.sum(1)
            left.plot(known, pull, style, color=COLOURS[k], label=f"{task}, {name}")
    told = "with the model's own coefficients", (apart[0], apart[1])
    say.show(say.pulls(detection.TASKS, "the backbone", *told))
    say.show(say.precision(found[0], found[1], len(unseen), STEPS))
    left.set(xlabel="step", ylabel="part of all contributions", ylim=(0, 1))
    left.legend(frameon=False, fontsize=8)
    pair = np.concatenate([example["pixel_values"].numpy() for example in examples[:2]], axis=2)
    right.imshow(np.clip(0.5 + pair.transpose(1, 2, 0) / 3.5, 0, 1))
    for shift, example in enumerate(examples[:2]):
        for x, y, width, height in (64 * example["labels"]["boxes"]).tolist():
            across = np.array([-1, 1, 1, -1, -1]) * width / 2 + x + 64 * shift - 0.5
            right.plot(across, np.array([-1, -1, 1, 1, -1]) * height / 2 + y - 0.5, "w-")
    save(figure, folder / "detection.png")
