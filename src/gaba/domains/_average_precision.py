"""The mean average precision of a detector, by COCO's reference implementation, pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gaba.domains._shapes import CLASSES, Example, collate
from gaba.extras import needs


def average_precision(model: Any, examples: Sequence[Example], batch: int = 64) -> dict[str, float]:
    """The mean average precision of a DETR-like model on labelled images, from 0 to 1.

    ``"mAP"`` is the mean over classes and overlaps of 0.50 to 0.95, ``"mAP50"`` at 0.50 alone. Each
    query is one detection of its most likely class, with that probability as its score.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: There is no image.

    Example:
        >>> from gaba.domains.detection import average_precision, shapes, small_yolos
        >>> found = average_precision(small_yolos(hidden=16, layers=1), shapes(4))
        >>> sorted(found), 0 <= found["mAP"] <= 1
        (['mAP', 'mAP50'], True)
    """
    with needs("mean average precision needs", "detection", "pycocotools"):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    if not examples:
        raise ValueError("examples must have at least one image, found none; pass shapes(100)")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _dataset(examples)  # pyright: ignore[reportAttributeAccessIssue]
        truth.createIndex()
        rows = _detections(model, examples, batch)
        measured = COCOeval(truth, truth.loadRes(rows), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return {"mAP": float(measured.stats[0]), "mAP50": float(measured.stats[1])}


def _dataset(examples: Sequence[Example]) -> dict[str, Any]:
    """The labels in the form of COCO's files: boxes as left, top, width, height in pixels."""
    images: list[dict[str, int]] = []
    annotations: list[dict[str, Any]] = []
    for number, example in enumerate(examples, start=1):
        height, width = example["pixel_values"].shape[-2:]
        images.append({"id": number, "width": width, "height": height})
        labels = example["labels"]
        for kind, box in zip(labels["class_labels"].tolist(), _corners(example), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
    kinds = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": kinds}


def _corners(example: Example, boxes: Any = None) -> Any:
    """(n, 4) as left, top, width, height in pixels."""
    centre = (example["labels"]["boxes"] if boxes is None else boxes).double().numpy()
    height, width = example["pixel_values"].shape[-2:]
    left_top = centre[:, :2] - centre[:, 2:] / 2
    return np.concatenate([left_top, centre[:, 2:]], axis=1) * (width, height, width, height)


def _detections(model: Any, examples: Sequence[Example], batch: int) -> Any:
    """(N, 7) as pycocotools takes them: image, box, score, category."""
    was_training = model.training
    model.eval()
    rows: list[Any] = []
    for start in range(0, len(examples), batch):
        part = examples[start : start + batch]
        with torch.no_grad():
            found = model(pixel_values=collate(part)["pixel_values"].to(model.device))
        scores, kinds = found.logits.softmax(-1)[..., :-1].max(-1)
        for i, example in enumerate(part):
            boxes = _corners(example, found.pred_boxes[i].cpu())
            number = np.full((len(boxes), 1), start + i + 1.0)
            score, kind = scores[i].cpu().numpy()[:, None], kinds[i].cpu().numpy()[:, None] + 1.0
            rows.append(np.concatenate([number, boxes, score, kind], axis=1))
    model.train(was_training)
    return np.concatenate(rows)
