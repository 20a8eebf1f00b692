"""The models of the benchmarks: a shared trunk with K heads, on synthetic batches of stated size.

Tasks take turns: an even one is a regression at a scale of its own (mean squared error times 100,
10, 100, ...), an odd one a classification with 3 classes (cross-entropy), so that the norms of the
tasks differ by orders of magnitude, as they do in practice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gaba.turbofan.model import FEATURES, SENSORS_AND_SETTINGS, WINDOW, Backbone

CLASSES = 3
SCALES = (100.0, 10.0)
"""What the losses of the regressions are multiplied by, in turn."""


@final
@dataclass(frozen=True)
class Batch:
    """Inputs (N, ...), and for each task a regression target and a class: (N, K) both."""

    inputs: Tensor
    values: Tensor
    classes: Tensor


def perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@final
class MultiTask(nn.Module):
    """A shared trunk and one head a task."""

    def __init__(self, trunk: nn.Module, width: int, hidden: Sequence[int], n_tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(
            perceptron(width, *hidden, CLASSES if k % 2 else 1) for k in range(n_tasks)
        )
        self.tasks = [f"{'class' if k % 2 else 'value'}{k}" for k in range(n_tasks)]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The features (N, width), and the K losses by name."""
        features = self.trunk(batch.inputs)
        losses: dict[str, Tensor] = {}
        for k, (task, head) in enumerate(zip(self.tasks, self.heads, strict=True)):
            output = head(features)
            if k % 2:
                losses[task] = functional.cross_entropy(output, batch.classes[:, k])
            else:
                error = functional.mse_loss(output[:, 0], batch.values[:, k])
                losses[task] = error * SCALES[k // 2 % len(SCALES)]
        return features, losses

    def shared_bytes(self) -> int:
        """The size of θ, and so of one gradient of it."""
        return sum(p.numel() * p.element_size() for p in self.trunk.parameters())


class MLP(nn.Sequential):
    """Six hidden layers."""

    def __init__(self, inputs: int, width: int, depth: int = 6) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((inputs, *[width] * depth)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers)


@final
class Attention(nn.Module):
    """Multi-head self-attention over tokens (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        n, t, width = tokens.shape
        split = self.inward(tokens).view(n, t, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.outward(mixed.transpose(1, 2).reshape(n, t, width))


@final
class Block(nn.Module):
    """One layer of a transformer, normalised before its parts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        tokens = tokens + self.attend(tokens)
        return tokens + self.think(tokens)


@final
class Positions(nn.Module):
    """Adds a learned vector to each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        return tokens + self.vectors


@final
class VisionTransformer(nn.Module):
    """Images (N, 3, side, side), cut into patches of 4 × 4, to features (N, width)."""

    def __init__(self, side: int, width: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.positions = Positions((side // 4) ** 2, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, side, side) to (N, width)."""
        tokens = self.positions(self.cut(images).flatten(2).transpose(1, 2))
        return self.norm(self.blocks(tokens)).mean(1)


@final
class Residual(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, around them the identity or a 1 × 1 convolution."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.around: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.around = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, images: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H/stride, W/stride)."""
        return functional.relu(self.inner(images) + self.around(images))


class ConvNet(nn.Sequential):
    """Images (N, 3, H, W) to features: residual stages, each at half the side of the last."""

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for stage, (before, after) in enumerate(pairwise((widths[0], *widths))):
            for block in range(blocks):
                first = block == 0
                stride = 2 if first and stage else 1
                layers.append(Residual(before if first else after, after, stride))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@final
@dataclass(frozen=True)
class Spec:
    """One model of the benchmarks.

    Attributes:
        title: what it is, in the tables.
        trunk: makes the shared part.
        inputs: the shape of one input.
        width: the features that the trunk gives.
        hidden: the hidden layers of every head.
        batch: inputs in a step whose cost or memory is measured.
        training_batch: inputs in a step of the training whose norms are measured.
    """

    title: str
    trunk: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    width: int
    hidden: tuple[int, ...]
    batch: int
    training_batch: int

    def model(self, n_tasks: int, seed: int = 0) -> MultiTask:
        """The model with K heads, its parameters drawn from ``seed``."""
        torch.manual_seed(seed)
        return MultiTask(self.trunk(), self.width, self.hidden, n_tasks)

    def batches(self, n_tasks: int, size: int) -> Callable[[int], Batch]:
        """From the number of a step to its batch: the same number gives the same batch.

        The targets are a function of the inputs that can be learnt (each task its own: the tanh of
        a fixed random projection, for a class cut into thirds) with some noise on the values.
        """
        length = torch.Size(self.inputs).numel()
        fixed = torch.Generator().manual_seed(1)
        teacher = torch.randn(length, n_tasks, generator=fixed) / length**0.5
        thirds = torch.tensor([-0.43, 0.43])

        def batch(step: int) -> Batch:
            own = torch.Generator().manual_seed(1000 + step)
            inputs = torch.randn(size, *self.inputs, generator=own)
            signal = inputs.flatten(1) @ teacher
            noise = 0.1 * torch.randn(signal.shape, generator=own)
            return Batch(inputs, signal.tanh() + noise, torch.bucketize(signal, thirds))

        return batch


def _turbofan(hidden: int, batch: int, training_batch: int, name: str) -> Spec:
    return Spec(
        title=f"turbofan backbone, {name}",
        trunk=lambda: Backbone(hidden),
        inputs=(WINDOW, SENSORS_AND_SETTINGS),
        width=FEATURES,
        hidden=(32, 16),
        batch=batch,
        training_batch=training_batch,
    )


def _mlp(width: int, batch: int, training_batch: int) -> Spec:
    return Spec(
        title=f"MLP 6×{width}",
        trunk=lambda: MLP(64, width),
        inputs=(64,),
        width=width,
        hidden=(),
        batch=batch,
        training_batch=training_batch,
    )


def _vit(side: int, width: int, depth: int, batch: int, training_batch: int) -> Spec:
    return Spec(
        title=f"vision transformer, {depth} layers of {width}",
        trunk=lambda: VisionTransformer(side, width, depth),
        inputs=(3, side, side),
        width=width,
        hidden=(),
        batch=batch,
        training_batch=training_batch,
    )


def _convnet(side: int, widths: tuple[int, ...], blocks: int, batch: int, training: int) -> Spec:
    return Spec(
        title="residual convolution net, stages of " + ", ".join(map(str, widths)),
        trunk=lambda: ConvNet(widths, blocks),
        inputs=(3, side, side),
        width=widths[-1],
        hidden=(),
        batch=batch,
        training_batch=training,
    )


Name = Literal["turbofan-small", "turbofan-paper", "mlp", "vit", "resnet"]

FULL: Mapping[Name, Spec] = {
    "turbofan-small": _turbofan(64, 128, 32, "small"),
    "turbofan-paper": _turbofan(256, 32, 8, "paper"),
    "mlp": _mlp(1024, 64, 16),
    "vit": _vit(32, 128, 4, 8, 8),
    "resnet": _convnet(32, (32, 64, 128), 1, 8, 8),
}
TINY: Mapping[Name, Spec] = {
    "turbofan-small": _turbofan(8, 4, 4, "tiny"),
    "turbofan-paper": _turbofan(16, 4, 4, "tiny, twice as wide"),
    "mlp": _mlp(16, 4, 4),
    "vit": _vit(8, 16, 1, 4, 4),
    "resnet": _convnet(8, (4, 8), 1, 4, 4),
}
