"""DynUNet of MONAI with deep supervision: discs and squares in noise."""

from __future__ import annotations

import torch
from monai.losses import DeepSupervisionLoss, DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets import DynUNet
from monai.networks.utils import one_hot
from torch import Tensor, nn

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="Segmentation, Dice and cross-entropy with deep supervision",
    package="monai",
    metric="Dice",
    better="higher",
    tasks=("dice", "cross-entropy"),
)
SIDE, CLASSES, TRAIN, TEST, BATCH, STEPS = 48, 3, 400, 200, 8, 350


def pictures(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (N, 1, 48, 48) of one disc and one square in noise, and their classes."""
    place = torch.arange(SIDE)
    labels = torch.zeros(count, SIDE, SIDE)
    for kind in (1, 2):
        size = 3 + 7 * torch.rand(count, 1, 1, generator=draw)
        middle = 10 + (SIDE - 20) * torch.rand(2, count, 1, 1, generator=draw)
        down, right = (place[:, None] - middle[0]).abs(), (place - middle[1]).abs()
        disc, square = down.square() + right.square() < size.square(), down.maximum(right) < size
        labels[disc if kind == 1 else square] = kind
    noise = torch.randn(count, SIDE, SIDE, generator=draw)
    return ((labels > 0) + 0.6 * noise)[:, None], labels[:, None].long()


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean Dice of discs and squares on pictures that were held out."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    (images, labels), (unseen, truth) = pictures(TRAIN, draw), pictures(TEST, draw)
    kernels, strides = [3] * 4, [1, 2, 2, 2]
    deep = {"filters": [8, 16, 32, 64], "deep_supervision": True, "deep_supr_num": 2}
    net = DynUNet(2, 1, CLASSES, kernels, strides, strides[1:], **deep)
    dice = DeepSupervisionLoss(DiceLoss(softmax=True))
    entropy = DeepSupervisionLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    balancer = arm.balancer(net)  # +
    with arm.training():
        for _ in range(STEPS):
            rows = torch.randint(TRAIN, (BATCH,), generator=draw)
            outputs = list(net(images[rows]).unbind(1))
            target = one_hot(labels[rows], CLASSES)
            optimizer.zero_grad()
            losses = {"dice": dice(outputs, target), "cross-entropy": entropy(outputs, target)}
            balancer.backward(losses)  # +
            nn.utils.clip_grad_norm_(net.parameters(), 12.0)
            optimizer.step()
    net.eval()
    metric = DiceMetric(include_background=False)
    with torch.no_grad():
        for some, right in zip(unseen.split(50), truth.split(50), strict=True):
            metric(one_hot(net(some).argmax(1, keepdim=True), CLASSES), one_hot(right, CLASSES))
    return Outcome(metric.aggregate().item(), net)
