"""Federated learning: clients whose updates pull equally hard on the global model.

The contributions m_k ‖Δ_k‖ are equal, with Δ_k = model of client k − model it was sent.

The arithmetic needs NumPy and gaba only: `ClientWeights`, `update_norm`, `merge`. `BalancedFedAvg`
is Flower's strategy with these weights. This is no defence against an attacker: a malicious client
with a usual norm passes.
"""

from gaba.domains._clients import ClientWeights, Round, merge, update_norm
from gaba.domains._flower import BalancedFedAvg

__all__ = ["BalancedFedAvg", "ClientWeights", "Round", "merge", "update_norm"]
