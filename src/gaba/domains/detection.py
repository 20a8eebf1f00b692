"""Object detection: class, box and overlap losses that pull equally hard on the backbone.

The losses are those of a DETR-like model of Transformers: class (cross-entropy or similar), box
(L1) and overlap (generalised IoU). The coefficients of the matching, which pairs predictions with
objects, stay as they are. The cardinality error is a count without a gradient and never balanced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

import gaba
from gaba.domains._average_precision import average_precision
from gaba.domains._shapes import CLASSES, Example, collate, shapes
from gaba.extras import needs
from gaba.rules import InverseNorm, Targets

with needs("the detection domain needs", "detection", "transformers", "accelerate", "scipy"):
    from transformers import YolosConfig, YolosForObjectDetection

    from gaba.integrations.transformers import BalancedTrainer

__all__ = [
    "CLASSES",
    "TASKS",
    "DetectionTrainer",
    "Example",
    "average_precision",
    "collate",
    "own_coefficients",
    "shapes",
    "small_yolos",
    "task_losses",
]

TASKS = ("class", "box", "overlap")
"""The tasks, in the order of every vector."""

_TASK_OF = {
    "loss_ce": "class",
    "loss_vfl": "class",
    "loss_focal": "class",
    "loss_bbox": "box",
    "loss_giou": "overlap",
}
_LOG_ONLY = {"cardinality_error", "class_error"}


def task_losses(loss_dict: Mapping[str, Tensor], tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
    """The losses by task from the ``loss_dict`` of a DETR-like model, without coefficients.

    "class" is ``loss_ce`` (or ``loss_vfl``, ``loss_focal``), "box" ``loss_bbox``, "overlap"
    ``loss_giou``. Auxiliary losses of earlier decoder layers (``loss_ce_0``, ...) are added to
    their task. ``cardinality_error`` is left out.

    Raises:
        ValueError: A task is unknown or absent, a loss is unknown, or a loss carries no gradient
            though gradients are enabled.

    Example:
        >>> import torch
        >>> w = torch.ones(3, requires_grad=True)
        >>> found = task_losses({"loss_ce": w[0], "loss_bbox": 2 * w[1], "loss_giou": w[2],
        ...                      "loss_bbox_0": w[1], "cardinality_error": torch.tensor(3.0)})
        >>> {name: loss.item() for name, loss in found.items()}
        {'class': 1.0, 'box': 3.0, 'overlap': 1.0}
    """
    for task in tasks:
        if task not in TASKS:
            why = ", a count that carries no gradient" if task in _LOG_ONLY else ""
            raise ValueError(
                f"tasks must be among {', '.join(TASKS)}, found {task!r}{why}; leave it out"
            )
    found: dict[str, Tensor] = {}
    for name, loss in loss_dict.items():
        kind = re.sub(r"_\d+$", "", name)
        if kind in _LOG_ONLY:
            continue
        if kind not in _TASK_OF:
            raise ValueError(
                f"loss_dict must have losses of class, box and overlap only, found {name!r}; "
                "balance that one by a trainer of your own"
            )
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"loss_dict[{name!r}] must carry a gradient, found a constant; check that the "
                "model is not frozen, and leave out what is for the log only"
            )
        task = _TASK_OF[kind]
        found[task] = found[task] + loss if task in found else loss
    absent = [task for task in tasks if task not in found]
    if absent:
        raise ValueError(
            f"loss_dict must have a loss for each task, found none for {', '.join(absent)} among "
            f"{', '.join(loss_dict)}; leave the task out, or pass labels to the model"
        )
    return {task: found[task] for task in tasks}


def own_coefficients(config: Any) -> gaba.Method:
    """The model's own fixed multipliers, 1 for class and its two coefficients, with norms measured.

    Raises:
        ValueError: The config has no such coefficients.

    Example:
        >>> from gaba.domains.detection import own_coefficients, small_yolos
        >>> own_coefficients(small_yolos().config).rule.ratios
        (1.0, 5.0, 2.0)
    """
    names = ("bbox_loss_coefficient", "giou_loss_coefficient")
    found: list[Any] = [getattr(config, name, None) for name in names]
    if None in found:
        raise ValueError(
            f"config must have {' and '.join(names)}, found {type(config).__name__}; use the "
            "config of a DETR-like model"
        )
    rule = Targets((1.0, *map(float, found)), InverseNorm(power=0))
    return gaba.Method(rule, anchor=TASKS.index("class"), limit=None)


@final
class DetectionTrainer(BalancedTrainer):
    """A `gaba.integrations.transformers.BalancedTrainer` for the losses of a DETR-like model.

    Example:
        With ``balancer = gaba.Balancer(TASKS, shared=model.vit)``: ``DetectionTrainer(model,
        arguments, train_dataset=shapes(500), data_collator=collate, balancer=balancer).train()``.
        As a whole: ``gaba domains detection``.

        >>> DetectionTrainer.__mro__[1].__name__
        'BalancedTrainer'
    """

    def task_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor | None]:
        """The losses of the balancer's tasks in ``outputs.loss_dict``."""
        return task_losses(outputs.loss_dict, self.balancer.tasks)


def small_yolos(
    size: int = 64, patch: int = 16, hidden: int = 48, layers: int = 2, queries: int = 4
) -> Any:
    """A small YOLOS with random weights, for shapes on a CPU.

    Positions and detection tokens, which Transformers initialises with zeros, are random, and the
    other weights larger than those of a wide model, so that a few hundred steps are enough.

    Args:
        size: Of the square images, in pixels.
        patch: The square that is one token, in pixels.
        hidden: The width, a multiple of 4.
        layers: Of the transformer.
        queries: The most objects in an image.

    Example:
        >>> model = small_yolos(hidden=16, layers=1)
        >>> sum(p.numel() for p in model.vit.parameters()) < 20_000
        True
    """
    model = YolosForObjectDetection(
        YolosConfig(
            image_size=[size, size],
            patch_size=patch,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_detection_tokens=queries,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            use_mid_position_embeddings=False,
            initializer_range=hidden**-0.5,
            id2label=dict(enumerate(CLASSES)),
            label2id={name: k for k, name in enumerate(CLASSES)},
        )
    )
    embeddings = model.vit.embeddings
    for tokens in (embeddings.position_embeddings, embeddings.detection_tokens):
        torch.nn.init.normal_(tokens)
    return model
