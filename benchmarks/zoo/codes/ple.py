"""PLE of deepctr-torch: whether a film is seen to its end, liked, and shared."""

from __future__ import annotations

import numpy as np
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import PLE
from deepctr_torch.models.basemodel import BaseModel
from sklearn.metrics import roc_auc_score

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="PLE recommender, three kinds of feedback",
    package="deepctr-torch",
    metric="mean AUC",
    better="higher",
    tasks=("finished", "liked", "shared"),
    fixed=("decay",),
    why_fixed="Weight decay is not to reach its end.",
)
USERS, ITEMS, FACTORS, ROWS, HELD_OUT, EPOCHS = 300, 200, 3, 60_000, 20_000, 5
LINES = {
    "loss = sum(": "loss = sum(parts :=",
    "total_loss.backward()": "balancer.backward({'finished': parts[0], 'liked': parts[1], "
    "'shared': parts[2], 'decay': reg_loss + self.aux_loss})",
}


def events(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Who saw what, and the feedback: a latent-factor model, rarer from task to task."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(USERS, size=ROWS), draw.integers(ITEMS, size=ROWS)
    likes, has = draw.normal(size=(USERS, FACTORS)), draw.normal(size=(ITEMS, FACTORS))
    weights = draw.normal(size=(3, 3 * FACTORS))
    pairs = np.concatenate([likes[user], has[item], likes[user] * has[item]], 1)
    logits = pairs @ weights.T + np.array([0.5, -1.5, -3.5])
    label = draw.random((ROWS, 3)) < 1 / (1 + np.exp(-logits))
    known = {"user": user, "item": item, "length": draw.normal(size=ROWS) + has[item, 0]}
    return known, label.astype("float32")


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean AUC of the three tasks on events that were held out."""
    known, labels = events(seed)
    torch.manual_seed(seed)
    columns = [SparseFeat("user", USERS, 8), SparseFeat("item", ITEMS, 8), DenseFeat("length", 1)]
    layers = {"expert_dnn_hidden_units": (64, 32), "tower_dnn_hidden_units": (16,)}
    tasks = {"task_types": ("binary",) * 3, "task_names": ENTRY.tasks}
    model = PLE(columns, gate_dnn_hidden_units=(16,), init_std=0.01, seed=seed, **layers, **tasks)
    model.compile(torch.optim.Adam(model.parameters(), 5e-3), ["binary_crossentropy"] * 3)
    balancer = arm.balancer("auto")  # +
    fit = arm.change(BaseModel.fit, LINES, balancer=balancer)
    seen = {name: values[HELD_OUT:] for name, values in known.items()}
    unseen = {name: values[:HELD_OUT] for name, values in known.items()}
    with arm.training():
        fit(model, seen, labels[HELD_OUT:], batch_size=256, epochs=EPOCHS, verbose=0)
    scores = roc_auc_score(labels[:HELD_OUT], model.predict(unseen), average=None)
    figures = dict(zip(ENTRY.tasks, scores.tolist(), strict=True))
    return Outcome(float(scores.mean()), model, figures)
