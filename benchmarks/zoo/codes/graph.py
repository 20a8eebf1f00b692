"""A graph network of torch_geometric on made-up molecules: three targets, each in its own unit."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_add_pool
from torch_geometric.nn.models import GIN

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="Graph network on Hückel molecules",
    package="torch_geometric",
    metric="error, % of the spread",
    better="lower",
    tasks=("energy", "gap", "distances"),
)
STEPS, BATCH, GRAPHS, HELD_OUT = 2_000, 64, 2_000, 500
ATOMS = np.array([0.0, 0.5, 1.0])
"""The Coulomb integrals of carbon, nitrogen and oxygen, in units of the resonance integral."""


def molecule(random: np.random.Generator) -> Data:
    """A connected graph of 6 to 20 atoms with at most three bonds each, and its π electrons."""
    count = int(random.integers(6, 21))
    bonds = np.zeros((count, count))
    for atom in range(1, count):
        free = np.flatnonzero(bonds[:atom].sum(1) < 3)
        bonds[atom, other := random.choice(free)] = 1
        bonds[other, atom] = 1
    kinds = random.choice(3, count, p=(0.7, 0.2, 0.1))
    levels = np.sort(np.linalg.eigvalsh(bonds + np.diag(ATOMS[kinds])))[::-1]
    steps = np.where(bonds > 0, 1.0, np.inf)
    np.fill_diagonal(steps, 0)
    for via in range(count):
        steps = np.minimum(steps, steps[:, via : via + 1] + steps[via])
    filled = count // 2
    targets = (2 * levels[:filled].sum(), levels[filled - 1] - levels[filled], steps.sum() / 2)
    edges = torch.from_numpy(np.stack(bonds.nonzero()))
    x = nn.functional.one_hot(torch.from_numpy(kinds), 3).float()
    return Data(x=x, edge_index=edges, y=torch.tensor([targets], dtype=torch.float32))


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean of the held-out errors, each relative to its target's spread."""
    random = np.random.default_rng(0)
    graphs = [molecule(random) for _ in range(GRAPHS + HELD_OUT)]
    held_out = Batch.from_data_list(graphs[GRAPHS:])
    torch.manual_seed(seed)
    trunk = GIN(3, 64, num_layers=4)
    heads = nn.ModuleList(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in ENTRY.tasks
    )
    model = nn.ModuleDict({"trunk": trunk, "heads": heads})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    balancer = arm.balancer(trunk)  # +

    def predict(batch: Batch) -> torch.Tensor:
        pooled = global_add_pool(trunk(batch.x, batch.edge_index), batch.batch)
        return torch.cat([head(pooled) for head in heads], 1)

    with arm.training():
        for _ in range(STEPS):
            rows = torch.randint(GRAPHS, (BATCH,)).tolist()
            batch = Batch.from_data_list([graphs[row] for row in rows])
            errors = mse_loss(predict(batch), batch.y, reduction="none").mean(0)
            optimizer.zero_grad()
            balancer.backward(dict(zip(ENTRY.tasks, errors, strict=True)))  # +
            optimizer.step()
    with torch.no_grad():
        wrong = (predict(held_out) - held_out.y).abs().mean(0) / held_out.y.std(0)
    return Outcome(
        100 * float(wrong.mean()), model, dict(zip(ENTRY.tasks, wrong.tolist(), strict=True))
    )
