"""TorchJD's weightings and aggregators, a fresh one at each call, and how they draw at random."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torchjd import aggregation as jd
from torchjd.linalg import DualConeProjector


class Enumerated(DualConeProjector):
    """min vᵀGv over v ≥ u by trying every set of bounds that are met: exact, without a solver."""

    def __call__(self, U: Tensor, G: Tensor) -> Tensor:
        if U.ndim > 1:
            return torch.stack([self(u, G) for u in U])
        found = []
        for free in product([False, True], repeat=len(U)):
            inside, bound = torch.tensor(free), ~torch.tensor(free)
            v = U.clone()
            if inside.any():
                rest = -G[inside][:, bound] @ U[bound]
                v[inside] = torch.linalg.solve(G[inside][:, inside], rest)
            if bool((v >= U - 1e-12).all()):
                found.append(v)
        return min(found, key=lambda v: float(v @ G @ v))


Theirs = Callable[[int], Any]

AGGREGATORS: dict[str, Theirs] = {
    "UPGrad": lambda k: jd.UPGrad(),
    "UPGrad, exact": lambda k: jd.UPGrad(projector=Enumerated()),
    "DualProj": lambda k: jd.DualProj(),
    "DualProj, exact": lambda k: jd.DualProj(projector=Enumerated()),
    "AlignedMTL": lambda k: jd.AlignedMTL(),
    "CAGrad": lambda k: jd.CAGrad(c=0.4),
    "ConFIG": lambda k: jd.ConFIG(),
    "ConFIG, preferring": lambda k: jd.ConFIG(pref_vector=torch.arange(1.0, k + 1).double()),
    "Constant": lambda k: jd.Constant(torch.arange(1.0, k + 1).double()),
    "FairGrad": lambda k: jd.FairGrad(alpha=1.0),
    "GradVac": lambda k: jd.GradVac(beta=0.3),
    "IMTLG": lambda k: jd.IMTLG(),
    "MGDA": lambda k: jd.MGDA(),
    "Mean": lambda k: jd.Mean(),
    "NashMTL": lambda k: jd.NashMTL(n_tasks=k),
    "NashMTL, every second": lambda k: jd.NashMTL(n_tasks=k, update_weights_every=2, max_norm=0),
    "PCD": lambda k: jd.PCD(tau=0.1, beta=0.5),
    "PCGrad": lambda k: jd.PCGrad(),
    "Random": lambda k: jd.Random(),
    "Sum": lambda k: jd.Sum(),
    "CRMOGM": lambda k: jd.GramianWeightedAggregator(
        jd.CRMOGMWeighting(jd.MGDAWeighting(), alpha=0.5)
    ),
    "CRMOGM of GradVac, from uniform": lambda k: jd.GramianWeightedAggregator(
        jd.CRMOGMWeighting(
            jd.GradVacWeighting(), alpha=0.5, initial_weights=torch.full((k,), 1 / k).double()
        )
    ),
    "CRMOGM of NashMTL": lambda k: jd.WeightedAggregator(
        jd.CRMOGMWeighting(jd.NashMTL(n_tasks=k).weighting)
    ),
}
THREE_AT_LEAST: dict[str, Theirs] = {
    "Krum": lambda k: jd.Krum(n_byzantine=0, n_selected=2),
}
WITH_A_MEMORY = [
    name for name in AGGREGATORS if any(w in name for w in ("CRMOGM", "GradVac", "Nash", "PCD"))
]
STRIDE = 1_000_003


def seeded(call: int, seed: int = 0) -> None:
    """Bring the global generator to where the bridge draws from in this call."""
    torch.manual_seed(STRIDE * seed + call)
