"""VICReg with the loss of pytorch-metric-learning on MNIST: a linear probe reads the digits."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import VICRegLoss
from pytorch_metric_learning.reducers import MultipleReducers
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from arms import Arm
from entry import Entry, Outcome
from gaba.bench._data import find
from gaba.bench.problems.multi_mnist import digits

ENTRY = Entry(
    title="VICReg on MNIST",
    package="pytorch-metric-learning",
    metric="probe accuracy",
    better="higher",
    tasks=("invariance",),
    fixed=("variance", "covariance"),
    why_fixed="Both keep the representation from collapsing; a kept constraint has no pull.",
)
BATCH, STEPS, WIDTH, PROBE, TEST = 256, 350, 64, 500, 4000
OLD = "return self.sub_loss_reduction(sub_losses, embeddings, labels)"
NEW = "return balancer({'invariance': sub_losses[0], 'variance': sub_losses[1] + sub_losses[2], "
NEW += "'covariance': sub_losses[3]})"


def view(images: Tensor) -> Tensor:
    """Each picture turned, scaled, sheared and moved at random, with noise."""
    change = torch.eye(2, 3) + 0.25 * torch.randn(len(images), 2, 3)
    moved = grid_sample(images, affine_grid(change, list(images.shape), False), align_corners=False)
    return moved + 0.2 * torch.randn_like(moved)


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the accuracy of a linear probe that sees few labels."""
    torch.manual_seed(seed)
    folder = find("mnist", "train-images-idx3-ubyte.gz")
    (images, labels), (unseen, truth) = digits(folder, "train"), digits(folder, "t10k")
    images, unseen = (x[:, None] / 255 for x in (images, unseen))
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 4 * 4, WIDTH)),
    )
    projector = nn.Sequential(
        *(nn.Linear(WIDTH, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256))
    )
    model, loss = nn.Sequential(encoder, projector), VICRegLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    balancer = arm.balancer(model)  # +
    reduce = arm.change(MultipleReducers.forward, {OLD: NEW}, balancer=balancer)
    loss.reducer.forward = reduce.__get__(loss.reducer)
    with arm.training():
        for _ in range(STEPS):
            some = images[torch.randint(len(images), (BATCH,))]
            optimizer.zero_grad()
            loss(model(view(some)), ref_emb=model(view(some))).backward()
            optimizer.step()
    encoder.eval()
    with torch.no_grad():
        known, asked = encoder(images[:PROBE]).numpy(), encoder(unseen[:TEST]).numpy()
    probe = LogisticRegression(max_iter=2000).fit(known, labels[:PROBE])
    return Outcome(float(probe.score(asked, truth[:TEST])), model)
