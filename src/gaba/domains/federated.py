"""Federated learning: clients whose updates pull equally hard on the global model.

What is equal: λ_k ‖Δ_k‖, with Δ_k the update that client k returns, the difference between its
model and the one it was sent. When that is the wrong thing to want: where a long update is long for
a good reason, because an honest client has more data, or data that the model has not met yet;
plain averaging lets it count for that, and this rule does not (``proportional_to="examples"`` gives
back the part that the number of examples explains). It is no defence against an attacker: a
malicious client of a usual norm passes.

The arithmetic stands on NumPy alone: `ClientWeights`, `update_norm`, `merge`. `BalancedFedAvg` puts
it into Flower as a strategy.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, final

import numpy as np
import torch

import gaba
from gaba.stabilisers import AnyStabiliser, Floor
from gaba.rules import InverseNorm, Targets

if TYPE_CHECKING:
    from gaba.domains._flower import BalancedFedAvg

__all__ = ["BalancedFedAvg", "ClientWeights", "Round", "merge", "update_norm"]

Arrays: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]
Client = TypeVar("Client", bound=Hashable)


def __getattr__(name: str) -> Any:
    if name == "BalancedFedAvg":  # Flower is imported when it is first asked for
        from gaba.domains import _flower

        return _flower.BalancedFedAvg
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@final
@dataclass(frozen=True)
class Round(Generic[Client]):
    """What was seen and done in one round; every mapping is by client.

    Attributes:
        norms: ‖Δ_k‖ as measured, of the clients that take part.
        weights: λ_k, on the simplex, of the same.
        contributions: λ_k ‖Δ_k‖.
        gain: The common factor of the update, which is gain · Σ_k λ_k Δ_k.
        saturated: The clients whose weight sits on the floor.
        left_out: Why a client that answered takes no part.
        beliefs: The state of the norm stabiliser of every client ever seen, for the next round.

    Example:
        >>> Round({1: 4.0, 2: 1.0}, {1: 0.2, 2: 0.8}, {1: 0.8, 2: 0.8}).imbalance
        1.0
    """

    norms: Mapping[Client, float]
    weights: Mapping[Client, float]
    contributions: Mapping[Client, float]
    gain: float = 1.0
    saturated: frozenset[Client] = frozenset()
    left_out: Mapping[Client, str] = field(default_factory=dict)
    beliefs: Mapping[Client, Any] = field(default_factory=dict)

    @property
    def imbalance(self) -> float:
        """Largest over smallest contribution; 1 is balanced, NaN of no client at all."""
        weights, norms = (np.array([*part.values()]) for part in (self.weights, self.norms))
        return float(gaba.imbalance(weights, norms)) if self.norms else math.nan


@final
@dataclass(frozen=True)
class ClientWeights:
    """Weigh each client by its inverse update norm, λ_k ∝ r_k / ĝ_k.

    g_k = ‖Δ_k‖ is the length of client k's update, ĝ_k what the stabiliser believes of it, and r_k
    is 1 or its number of examples. Weights sum to 1 over the clients that take part, and the global
    model moves by gain · Σ_k λ_k Δ_k. The rule is `gaba.rules.InverseNorm`.

    A client that does not answer keeps what is believed of it, and the others share the weight. A
    norm that is NaN or infinite leaves its client out of the round and out of the stabiliser. A
    norm of exactly 0, from a client that changed nothing, gets 1/K: no weight can make it pull.

    A client that hardly moves takes almost all of the weight. With ``scale="median"`` the gain
    makes up for that: Σ_k gain · λ_k ĝ_k is the median of ĝ, so that one client of any norm, large
    or small, alters the length of the step but little. With ``scale="simplex"`` the new model is a
    mean of the clients' models, and one that hardly moves brings it to a stop.

    Args:
        proportional_to: ``"clients"``, equal contributions; ``"examples"``, contributions in
            proportion to the numbers of examples, as in plain averaging with equal norms.
        norm_stabiliser: Smooths each client's norm over its rounds (`gaba.stabilisers.LogEMA`);
            None believes each norm, which repairs a sudden one at once.
        floor: The least weight as a part of the uniform weight 1/K, in [0, 1); at 0 there is none.
            No client is silenced, and a norm more than about 1/floor times the others' is not
            brought down in full.
        scale: ``"median"`` or ``"simplex"`` (gain 1).

    Raises:
        ValueError: A setting breaks its rule.

    Source: for equal contributions, GradNorm at α = 0 (Chen et al. 2018); the norm of the update as
    the pull of a client, McMahan et al. 2017, algorithm 1.

    Example:
        >>> from gaba.domains.federated import ClientWeights
        >>> seen = ClientWeights().weigh({"a": 1.0, "b": 1.0, "wild": 100.0})
        >>> {client: round(weight, 4) for client, weight in seen.weights.items()}
        {'a': 0.4975, 'b': 0.4975, 'wild': 0.005}
        >>> round(seen.imbalance, 6)
        1.0
    """

    proportional_to: Literal["clients", "examples"] = "clients"
    norm_stabiliser: AnyStabiliser | None = None
    floor: float = 0.0
    scale: Literal["median", "simplex"] = "median"

    def __post_init__(self) -> None:
        if self.proportional_to not in ("clients", "examples"):
            raise ValueError(
                "ClientWeights: proportional_to must be 'clients' or 'examples', found "
                f"{self.proportional_to!r}; 'clients' makes contributions equal"
            )
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"ClientWeights: floor must lie in [0, 1), found {self.floor!r}; it is a part of "
                "the uniform weight 1/K, and 0 sets none"
            )
        if self.scale not in ("median", "simplex"):
            raise ValueError(
                f"ClientWeights: scale must be 'median' or 'simplex', found {self.scale!r}; "
                "'simplex' takes a mean of the models"
            )

    def weigh(
        self,
        norms: Mapping[Client, float],
        examples: Mapping[Client, float] | None = None,
        beliefs: Mapping[Client, Any] | None = None,
    ) -> Round[Client]:
        """The weights of one round.

        Args:
            norms: ‖Δ_k‖ of the clients that answered, zero or more; NaN or infinite leaves out.
            examples: How many examples each of them trained on; for ``"examples"`` only.
            beliefs: ``Round.beliefs`` of the last round; None in the first.

        Returns:
            The round; without any client that can take part, one with no weights.

        Raises:
            ValueError: A norm is negative, or a number of examples is missing or not positive.

        Example:
            >>> from gaba.stabilisers import LogEMA
            >>> rule = ClientWeights("examples", LogEMA(0.5), floor=0.1)
            >>> first = rule.weigh({1: 2.0, 2: float("nan")}, examples={1: 50, 2: 70})
            >>> dict(first.weights), dict(first.left_out)
            ({1: 1.0}, {2: 'norm is nan'})
            >>> first.beliefs.keys()
            dict_keys([1])
        """
        left_out = {k: f"norm is {g}" for k, g in norms.items() if not math.isfinite(g)}
        present = [client for client in norms if client not in left_out]
        beliefs = dict(beliefs or {})
        if not present:
            return Round({}, {}, {}, left_out=left_out, beliefs=beliefs)
        measured = {client: float(norms[client]) for client in present}
        believed = np.array(self._believed(measured, beliefs))
        asked = self._rule(present, examples)(believed)
        weights, saturated = self._floored(asked)
        return Round(
            measured,
            dict(zip(present, weights, strict=True)),
            {k: w * measured[k] for k, w in zip(present, weights, strict=True)},
            self._gain(np.array(weights), believed),
            frozenset(k for k, is_low in zip(present, saturated, strict=True) if is_low),
            left_out,
            beliefs,
        )

    def _believed(self, norms: Mapping[Client, float], beliefs: dict[Client, Any]) -> list[float]:
        """Each norm stabilised by a state of its own, which ``beliefs`` then holds."""
        smoother = self.norm_stabiliser
        if smoother is None:
            return [*norms.values()]
        found: list[float] = []
        for client, norm in norms.items():  # one vector for all would need all clients beforehand
            state = beliefs.get(client, smoother.init(1))
            value, beliefs[client] = smoother.update(
                torch.tensor([norm], dtype=torch.float64), state
            )
            found.append(value.item())
        return found

    def _rule(
        self, clients: list[Client], examples: Mapping[Client, float] | None
    ) -> InverseNorm | Targets:
        if self.proportional_to == "clients":
            return InverseNorm()
        absent = [client for client in clients if client not in (examples or {})]
        if examples is None or absent:
            raise ValueError(
                "ClientWeights: examples must give a number for each client, found none for "
                f"{absent}; have the clients return it, or use proportional_to='clients'"
            )
        return Targets([examples[client] for client in clients])

    def _gain(self, weights: np.ndarray[Any, Any], norms: np.ndarray[Any, Any]) -> float:
        total = float(gaba.contributions(weights, norms).sum())
        return float(np.median(norms)) / total if self.scale == "median" and total > 0 else 1.0

    def _floored(self, weights: np.ndarray[Any, Any]) -> tuple[list[float], list[bool]]:
        if not self.floor:
            return weights.tolist(), [False] * len(weights)
        floor = Floor(self.floor / len(weights), mode="project")
        bounded, state = floor.update(torch.from_numpy(weights), floor.init(len(weights)))
        return bounded.tolist(), state.saturated.tolist()


def update_norm(before: Arrays, after: Arrays) -> float:
    """The length of a client's update, g = ‖Δ‖₂ with Δ = after − before, over all arrays together.

    Arrays of integers or booleans (counters) have no pull and are left out. The norm is in float64,
    and NaN or infinite if a value is.

    Raises:
        ValueError: The two do not have the same arrays of the same shapes.

    Example:
        >>> import numpy as np
        >>> update_norm({"w": np.zeros(2)}, {"w": np.array([3.0, 4.0])})
        5.0
    """
    _check_alike(before, after)
    parts = [
        np.linalg.norm((after[name].astype(np.float64) - array.astype(np.float64)).ravel())
        for name, array in before.items()
        if np.issubdtype(array.dtype, np.floating)
    ]
    return float(np.linalg.norm(parts)) if parts else 0.0


def merge(
    before: Arrays,
    models: Mapping[Client, Arrays],
    weights: Mapping[Client, float],
    gain: float = 1.0,
) -> dict[str, np.ndarray[Any, Any]]:
    """The new global model, before + gain · Σ_k λ_k Δ_k with Δ_k = model_k − before.

    At gain 1 and with weights that sum to 1, that is Σ_k λ_k model_k. Summed in float64; each array
    keeps its dtype, and integers (counters) become the rounded mean, whatever the gain. A model
    whose client has no weight, because it was left out of the round, is not used.

    Raises:
        ValueError: There is no weight at all, a weight's client has no model, or models differ in
            their arrays.

    Example:
        >>> import numpy as np
        >>> models = {"a": {"w": np.array([2.0])}, "b": {"w": np.array([4.0])}}
        >>> merge({"w": np.array([1.0])}, models, {"a": 0.75, "b": 0.25}, gain=2.0)
        {'w': array([4.])}
    """
    absent = [client for client in weights if client not in models]
    if not weights or absent:
        raise ValueError(
            f"merge: every weight must have a model and there must be one, found {len(weights)} "
            f"weights, no model of {absent}; keep the old model if no client takes part"
        )
    for client in weights:
        _check_alike(before, models[client])
    merged: dict[str, np.ndarray[Any, Any]] = {}
    for name, old in before.items():
        whole = not np.issubdtype(old.dtype, np.floating)
        start = old.astype(np.float64)
        update = np.zeros(old.shape)
        for client, weight in weights.items():
            update += weight * (models[client][name].astype(np.float64) - start)
        new = np.rint(start + update) if whole else start + gain * update
        merged[name] = new.astype(old.dtype)
    return merged


def _check_alike(one: Arrays, other: Arrays) -> None:
    shapes, others = ({name: a.shape for name, a in part.items()} for part in (one, other))
    if shapes != others:
        wrong = sorted({*shapes.items()} ^ {*others.items()})
        raise ValueError(
            f"arrays must have the same names and shapes in every model, found a difference in "
            f"{', '.join(sorted({name for name, _ in wrong}))}; send whole models of one kind"
        )
