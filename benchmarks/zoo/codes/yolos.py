"""YOLOS of transformers on generated shapes: classes, corners and overlap of the boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import YolosConfig, YolosForObjectDetection, set_seed
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import box_iou

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="YOLOS on shapes",
    package="transformers",
    metric="mean average precision",
    better="higher",
    tasks=("class", "box", "overlap"),
)
STEPS, BATCH, SIDE = 1000, 16, 32


def scenes(number: int, seed: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures (N, 3, S, S) with one or two things, and their classes and boxes."""
    draw, axis = torch.Generator().manual_seed(seed), (torch.arange(SIDE) + 0.5) / SIDE
    pictures, labels = 0.2 * torch.randn(number, 3, SIDE, SIDE, generator=draw), []
    for picture in pictures:
        things = int(torch.randint(1, 3, (), generator=draw))
        form = torch.randint(3, (things,), generator=draw)
        size = 0.35 + 0.25 * torch.rand(things, 2, generator=draw)
        middle = size / 2 + (1 - size) * torch.rand(things, 2, generator=draw)
        for f, s, m in zip(form, size, middle, strict=True):
            x, y = (2 * (axis - m[:, None]).abs() / s[:, None])[:, None]
            inside = (torch.maximum(x, y.T), x.square() + y.T.square(), x + y.T)[f] < 1
            picture[:] = torch.where(inside, torch.rand(3, 1, 1, generator=draw) + 0.5, picture)
        labels.append({"class_labels": form, "boxes": torch.cat([middle, size], 1)})
    return pictures, labels


def precision(scores: Tensor, boxes: Tensor, labels: list[dict[str, Tensor]], form: int) -> float:
    """Average precision of one class at an overlap of 0.5, of scores (N, D)."""
    truth = [label["boxes"][label["class_labels"] == form] for label in labels]
    free, hits = [torch.ones(len(t), dtype=torch.bool) for t in truth], []
    for at in scores.flatten().argsort(descending=True).tolist():
        n, d = divmod(at, scores.shape[1])
        box, true = (center_to_corners_format(b) for b in (boxes[n, d][None], truth[n]))
        overlap = box_iou(box, true)[0][0] * free[n]
        hits.append(float((overlap > 0.5).any()))
        if hits[-1]:
            free[n][overlap.argmax()] = False
    precisions = torch.tensor(hits).cumsum(0) / torch.arange(1, len(hits) + 1)
    return (torch.tensor(hits) @ precisions / sum(map(len, truth))).item()


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean average precision on new pictures."""
    pictures, labels = scenes(4096, seed)
    set_seed(seed)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    size |= {"image_size": (SIDE, SIDE), "patch_size": 8, "num_attention_heads": 4}
    config = YolosConfig(num_labels=3, num_detection_tokens=4, initializer_range=0.1, **size)
    model = YolosForObjectDetection(config)
    torch.nn.init.normal_(model.vit.embeddings.position_embeddings, std=0.1)  # zero, it is slow
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    balancer = arm.balancer(model.vit)  # +
    with arm.training():
        for _ in range(STEPS):
            batch = torch.randint(len(pictures), (BATCH,))
            loss = model(pictures[batch], labels=[labels[n] for n in batch]).loss_dict
            box, overlap = 5 * loss["loss_bbox"], 2 * loss["loss_giou"]  # its own coefficients
            balancer.backward({"class": loss["loss_ce"], "box": box, "overlap": overlap})  # +
            optimizer.step()
            optimizer.zero_grad()
    pictures, labels = scenes(256, 10_000)
    with torch.no_grad():
        out = model.eval()(pictures)
    scores = out.logits.softmax(2).unbind(2)
    each = [precision(scores[form], out.pred_boxes, labels, form) for form in range(3)]
    return Outcome(sum(each) / len(each), model)
