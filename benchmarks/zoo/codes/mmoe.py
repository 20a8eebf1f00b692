"""MMoE of torch-rechub: clicks, and the purchases that follow some of them."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import TorchDataset
from torch_rechub.utils.mtl import shared_task_layers

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="MMoE recommender, clicks and purchases",
    package="torch-rechub",
    metric="mean AUC",
    better="higher",
    tasks=("click", "purchase"),
)
USERS, ITEMS, FACTORS, ROWS, HELD_OUT, BATCH, EPOCHS = 300, 200, 3, 80_000, 20_000, 256, 6
OLD = "loss = sum(loss_list) / self.n_task"
NEW = "loss = balancer({'click': loss_list[0] / 2, 'purchase': loss_list[1] / 2})"


def events(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Who saw what, and whether they clicked and bought: a latent-factor model."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(USERS, size=ROWS), draw.integers(ITEMS, size=ROWS)
    likes, buys = draw.normal(size=(2, USERS, FACTORS)), draw.normal(size=(2, ITEMS, FACTORS))
    buys[1] = 0.5 * buys[0] + 0.5 * buys[1]
    logits = np.einsum("tnf,tnf->nt", likes[:, user], buys[:, item]) + np.array([-0.5, -1.5])
    label = draw.random((ROWS, 2)) < 1 / (1 + np.exp(-logits))
    label[:, 1] &= label[:, 0]
    known = {"user": user, "item": item, "likes": (likes[0, user, 0] > 0) + 0, "kind": item % 20}
    features = {name: torch.from_numpy(values).long() for name, values in known.items()}
    return features, torch.from_numpy(label.astype("float32"))


def batches(features: dict[str, Tensor], labels: Tensor, sampler: type) -> DataLoader:
    data = TorchDataset(features, labels)
    return DataLoader(data, sampler=BatchSampler(sampler(data), BATCH, False), batch_size=None)


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean AUC of both tasks on events that were held out."""
    features, labels = events(seed)
    torch.manual_seed(seed)
    fields = [SparseFeature(n, int(v.max()) + 1, embed_dim=8) for n, v in features.items()]
    kinds = ["classification", "classification"]
    model = MMOE(fields, kinds, 4, {"dims": [64, 32]}, [{"dims": [16]}, {"dims": [16]}])
    adam = {"lr": 5e-3, "weight_decay": 1e-5}
    trainer = MTLTrainer(model, kinds, torch.optim.Adam, adam, n_epoch=EPOCHS)
    balancer = arm.balancer(shared_task_layers(model)[0])  # +
    balanced = arm.change(MTLTrainer.train_one_epoch, {OLD: NEW}, balancer=balancer)
    trainer.train_one_epoch = balanced.__get__(trainer)
    seen = {n: v[HELD_OUT:] for n, v in features.items()}
    unseen = {n: v[:HELD_OUT] for n, v in features.items()}
    test = batches(unseen, labels[:HELD_OUT], SequentialSampler)
    with tempfile.TemporaryDirectory() as trainer.model_path, arm.training():
        trainer.fit(batches(seen, labels[HELD_OUT:], RandomSampler), test)
    scores = trainer.evaluate(model, test)
    return Outcome(float(np.mean(scores)), model, dict(zip(ENTRY.tasks, scores, strict=True)))
