"""Losses of a DETR-like model by task, in the Trainer, and mean average precision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

import gaba
from gaba.domains import detection
from gaba.domains.detection import TASKS, average_precision, collate, shapes, task_losses
from gaba.rules import Targets
from gaba.stabilisers import Identity


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return detection.small_yolos(hidden=16, layers=1)


def loss_dict(**extra: torch.Tensor) -> dict[str, torch.Tensor]:
    w = torch.ones(3, requires_grad=True)
    return {"loss_ce": w[0], "loss_bbox": 2 * w[1], "loss_giou": 3 * w[2], **extra}


def test_the_tasks_with_the_models_own_coefficients_are_its_loss() -> None:
    model, batch = tiny(), collate(shapes(4))
    outputs = model(**batch)
    losses = task_losses(outputs.loss_dict)
    assert tuple(losses) == TASKS
    rule = detection.own_coefficients(model.config).rule
    assert isinstance(rule, Targets)
    coefficients = rule.ratios
    total = sum(c * loss for c, loss in zip(coefficients, losses.values(), strict=True))
    torch.testing.assert_close(total, outputs.loss)


def test_the_own_coefficients_give_the_models_own_gradient() -> None:
    model, batch = tiny(), collate(shapes(4))
    balancer = gaba.Balancer(TASKS, model.vit, detection.own_coefficients(model.config))
    step = balancer.backward(task_losses(model(**batch).loss_dict))
    np.testing.assert_allclose(step.multipliers, [1, 5, 2])
    assert step.measured
    ours = torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    model(**batch).loss.backward()
    own = torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-6)


def test_auxiliary_losses_are_added_and_counts_left_out() -> None:
    count = torch.tensor(2.0)
    extra = {f"loss_bbox_{k}": 10 * torch.ones((), requires_grad=True) for k in range(3)}
    found = task_losses(loss_dict(**extra, cardinality_error=count, cardinality_error_0=count))
    assert {name: loss.item() for name, loss in found.items()} == {
        "class": 1,
        "box": 32,
        "overlap": 3,
    }
    assert [*task_losses(loss_dict(), ["overlap", "class"])] == ["overlap", "class"]


@pytest.mark.parametrize(
    ("given", "tasks", "message"),
    [
        (loss_dict(), ["class", "cardinality_error"], "count that carries no gradient"),
        (loss_dict(), ["mask"], "found 'mask'; leave it out"),
        (loss_dict(loss_mask=torch.ones(())), TASKS, "found 'loss_mask'"),
        (loss_dict(loss_ce=torch.ones(())), TASKS, r"\['loss_ce'\] must carry a gradient"),
        ({"loss_ce": torch.ones((), requires_grad=True)}, TASKS, "none for box, overlap"),
    ],
)
def test_a_loss_that_cannot_be_balanced_is_a_clear_error(
    given: Any, tasks: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        task_losses(given, tasks)
    assert "\n" not in str(caught.value)


def test_without_gradients_constants_are_measured_as_they_are() -> None:
    with torch.no_grad():
        assert task_losses({**loss_dict(), "loss_ce": torch.ones(())})["class"] == 1


def test_a_config_without_coefficients_is_refused() -> None:
    with pytest.raises(ValueError, match="bbox_loss_coefficient"):
        detection.own_coefficients(SimpleNamespace())


@pytest.mark.parametrize("name", ["inverse", "own"])
def test_the_trainer_balances_on_the_backbone(name: str, tmp_path: Path) -> None:
    model = tiny()
    inverse = gaba.methods.get("inverse", believe=Identity())
    method = detection.own_coefficients(model.config) if name == "own" else inverse
    balancer = gaba.Balancer(TASKS, model.vit, method)
    settings: dict[str, Any] = {"use_cpu": True, "report_to": [], "save_strategy": "no"}
    settings |= {"remove_unused_columns": False, "disable_tqdm": True, "max_steps": 3}
    arguments = TrainingArguments(output_dir=str(tmp_path), **settings)
    before = model.vit.embeddings.position_embeddings.detach().clone()
    data: Any = {"train_dataset": shapes(16), "data_collator": collate}
    detection.DetectionTrainer(model, arguments, balancer=balancer, **data).train()
    history = balancer.history
    assert history.norms.shape == (3, 3)
    if name == "inverse":
        np.testing.assert_allclose(history.imbalance, 1, rtol=1e-5)
    else:
        np.testing.assert_allclose(history.multipliers, np.tile([1, 5, 2], (3, 1)))
        assert (history.imbalance > 1.01).all()
    assert (model.vit.embeddings.position_embeddings != before).any()


def test_boxes_surround_their_shapes() -> None:
    for example in shapes(20, most=1, seed=3):
        image = example["pixel_values"]
        ground = image[:, [0, 0, -1, -1], [0, -1, 0, -1]].median(1).values
        x, y, width, height = (64 * example["labels"]["boxes"][0]).tolist()
        inside = (image - ground[:, None, None]).abs().mean(0) > 0.4
        rows, columns = inside.nonzero(as_tuple=True)
        assert abs(columns.min() - (x - width / 2)) < 2
        assert abs(columns.max() + 1 - (x + width / 2)) < 2
        assert abs(rows.max() + 1 - (y + height / 2)) < 2


def test_shapes_are_the_same_for_the_same_seed_and_fill_images_as_asked() -> None:
    one, other = shapes(5, most=3, seed=4), shapes(5, most=3, seed=4)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        boxes = a["labels"]["boxes"]
        assert 1 <= len(boxes) == len(a["labels"]["class_labels"]) <= 3
        assert (boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-6).all()
        assert (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-6).all()
    with pytest.raises(ValueError, match="at least 1"):
        shapes(0)


class Oracle(torch.nn.Module):
    """Answers with the labels of the examples, shifted by a part of their width."""

    device = torch.device("cpu")

    def __init__(self, examples: Any, shift: float, kinds: int = 0) -> None:
        super().__init__()
        self._examples, self._shift, self._kinds = examples, shift, kinds

    def forward(self, pixel_values: torch.Tensor) -> Any:
        boxes, logits = (
            torch.full((len(pixel_values), 3, 4), 0.01),
            torch.zeros(len(pixel_values), 3, 4),
        )
        logits[..., -1] = 9.0  # nothing there
        for i, image in enumerate(pixel_values):
            match = (e for e in self._examples if torch.equal(e["pixel_values"], image))
            labels = next(match)["labels"]
            n = len(labels["boxes"])
            boxes[i, :n] = labels["boxes"]
            boxes[i, :n, 0] += self._shift * labels["boxes"][:, 2]
            kinds = (labels["class_labels"] + self._kinds) % 3
            logits[i, range(n), kinds] = 20.0
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


def test_average_precision_of_known_answers() -> None:
    examples = shapes(12, most=3, seed=5)
    assert average_precision(Oracle(examples, 0.0), examples)["mAP"] == pytest.approx(1)
    # a shift by s of the width: overlap (1 - s) / (1 + s), .74 for s = .15: 5 of 10 thresholds
    found = average_precision(Oracle(examples, 0.15), examples, batch=5)
    assert found == pytest.approx({"mAP": 0.5, "mAP50": 1.0})
    wrong = average_precision(Oracle(examples, 0.0, kinds=1), examples)
    assert wrong["mAP50"] < 0.05
    with pytest.raises(ValueError, match="at least one image"):
        average_precision(Oracle(examples, 0.0), [])


def test_measuring_leaves_the_model_in_training() -> None:
    model = tiny().train()
    average_precision(model, shapes(2))
    assert model.training
