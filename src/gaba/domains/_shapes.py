"""A generated data set: coloured shapes on a noisy ground, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CLASSES = ("disc", "square", "triangle")
"""The shapes, in the order of their class labels."""


class Example(TypedDict):
    """An image (3, S, S) and its labels: ``class_labels`` (n,), ``boxes`` (n, 4).

    Boxes are centre x, centre y, width and height, as parts of the image, as Transformers has them.

    Example:
        >>> from gaba.domains.detection import Example
        >>> sorted(Example.__annotations__)
        ['labels', 'pixel_values']
    """

    pixel_values: Tensor
    labels: dict[str, Tensor]


def shapes(count: int, size: int = 64, most: int = 3, seed: int = 0) -> list[Example]:
    """Images with 1 to ``most`` shapes that hardly overlap, the same for the same seed.

    Args:
        count: How many images.
        size: S, their width and height in pixels.
        most: The most shapes in one.
        seed: Of everything.

    Raises:
        ValueError: A number is not positive.

    Example:
        >>> from gaba.domains.detection import shapes
        >>> example = shapes(1)[0]
        >>> tuple(example["pixel_values"].shape), tuple(example["labels"]["boxes"].shape)[1]
        ((3, 64, 64), 4)
    """
    if min(count, size, most) < 1:
        raise ValueError(
            f"count, size and most must be at least 1, found {count}, {size} and {most}; ask for "
            "an image with a shape"
        )
    draw = np.random.default_rng(seed)
    return [_example(draw, size, int(draw.integers(1, most + 1))) for _ in range(count)]


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """One batch for a DETR-like model: images (B, 3, S, S) and a list of labels.

    Example:
        >>> from gaba.domains.detection import collate, shapes
        >>> batch = collate(shapes(2))
        >>> tuple(batch["pixel_values"].shape), len(batch["labels"])
        ((2, 3, 64, 64), 2)
    """
    images = torch.stack([example["pixel_values"] for example in examples])
    return {"pixel_values": images, "labels": [example["labels"] for example in examples]}


def _example(draw: np.random.Generator, size: int, wanted: int) -> Example:
    image = draw.normal(0.0, 0.1, (3, size, size)) + draw.uniform(-0.5, 0.5, (3, 1, 1))
    boxes: list[NDArray[np.float64]] = []
    labels: list[int] = []
    for _ in range(20 * wanted):
        side = draw.uniform(0.2, 0.45)
        centre = draw.uniform(side / 2, 1 - side / 2, 2)
        apart = all((np.abs(centre - box[:2]) > 0.9 * (side + box[2:]) / 2).any() for box in boxes)
        if apart:
            label = int(draw.integers(len(CLASSES)))
            inside = _inside(label, size, centre, side)
            colour = draw.uniform(0.8, 1.6, 3) * draw.choice([-1, 1], 3)
            image = np.where(inside, colour[:, None, None], image)
            boxes.append(np.array([*centre, side, side]))
            labels.append(label)
        if len(boxes) == wanted:
            break
    return {
        "pixel_values": torch.tensor(image, dtype=torch.float32),
        "labels": {
            "class_labels": torch.tensor(labels),
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
        },
    }


def _inside(label: int, size: int, centre: NDArray[np.float64], side: float) -> NDArray[np.bool_]:
    """The pixels (S, S) that the shape covers; its box is ``side`` wide and high."""
    at = (np.arange(size) + 0.5) / size
    x, y = (at[None, :] - centre[0]) / side, (at[:, None] - centre[1]) / side  # -.5 ... .5
    if CLASSES[label] == "disc":
        return x**2 + y**2 <= 0.25
    square = (np.abs(x) <= 0.5) & (np.abs(y) <= 0.5)
    return square & (np.abs(x) <= (y + 0.5) / 2) if CLASSES[label] == "triangle" else square
