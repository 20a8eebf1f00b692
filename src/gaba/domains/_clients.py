"""One multiplier for each client of a round, from the lengths of their updates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar, final

import numpy as np
import torch

import gaba
from gaba.rules import InverseNorm, Rule, Targets
from gaba.stabilisers import Floor, Identity, Stabiliser

Arrays: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]
Client = TypeVar("Client", bound=Hashable)


@final
@dataclass(frozen=True)
class Round(Generic[Client]):
    """What was seen and done in one round; every mapping is by client.

    Attributes:
        norms: g_k = ‖Δ_k‖ of the clients that take part.
        multipliers: m_k: the model moves by Σ_k m_k Δ_k.
        saturated: The clients whose weight is at the floor.
        left_out: Why a client that answered takes no part.
        beliefs: What is believed of every client ever seen, for the next round.

    Example:
        >>> Round({1: 4.0, 2: 1.0}, {1: 0.4, 2: 1.6}).weights
        {1: 0.2, 2: 0.8}
    """

    norms: Mapping[Client, float]
    multipliers: Mapping[Client, float]
    saturated: frozenset[Client] = frozenset()
    left_out: Mapping[Client, str] = field(default_factory=dict)
    beliefs: Mapping[Client, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[Client, float]:
        """λ_k = m_k / Σ m."""
        return _weights(self.multipliers)

    @property
    def contributions(self) -> dict[Client, float]:
        """c_k = m_k g_k, the length of each client's part of the step."""
        return {k: m * self.norms[k] for k, m in self.multipliers.items()}

    @property
    def imbalance(self) -> float:
        """Largest over smallest contribution; 1 is balanced, NaN without clients."""
        parts = (np.array([*part.values()]) for part in (self.multipliers, self.norms))
        return float(gaba.imbalance(*parts)) if self.norms else math.nan


@final
@dataclass(frozen=True)
class ClientWeights:
    """Weigh each client by its inverse update norm, λ_k ∝ r_k / ĝ_k.

    ĝ_k is what is believed of the length g_k = ‖Δ_k‖ of client k's update, and r_k is 1 or the
    number of its examples. A client that does not answer keeps its belief. A norm that is NaN or
    infinite leaves its client out. A norm of exactly 0 gets the weight 1/K.

    Args:
        proportional_to: ``"clients"`` for equal contributions, ``"examples"`` for contributions in
            proportion to the numbers of examples.
        believe: Smooths each client's norm over its rounds, such as `gaba.stabilisers.LogEMA`. By
            default each norm is believed, which corrects a sudden one at once.
        floor: The least weight relative to 1/K, in [0, 1). No client is silenced, but a norm more
            than about 1/floor times the others' is not corrected in full.
        scale: ``"median"``: Σ m_k ĝ_k is the median of ĝ, so that one client of any norm hardly
            changes the length of the step. ``"simplex"``: Σ m_k = 1, so the new model is a mean of
            the clients' models, and one client that hardly moves brings it to a stop.

    Raises:
        ValueError: A setting breaks its rule.

    Source: GradNorm at α = 0 (Chen et al. 2018); McMahan et al. 2017, algorithm 1.

    Example:
        >>> from gaba.domains.federated import ClientWeights
        >>> seen = ClientWeights().weigh({"a": 1.0, "b": 1.0, "wild": 100.0})
        >>> {client: round(weight, 4) for client, weight in seen.weights.items()}
        {'a': 0.4975, 'b': 0.4975, 'wild': 0.005}
        >>> round(seen.imbalance, 6)
        1.0
    """

    proportional_to: Literal["clients", "examples"] = "clients"
    believe: Stabiliser = Identity()  # noqa: RUF009 - frozen
    floor: float = 0.0
    scale: Literal["median", "simplex"] = "median"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("proportional_to", ("clients", "examples")),
            ("scale", ("median", "simplex")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"ClientWeights: {name} must be {allowed[0]!r} or {allowed[1]!r}, found "
                    f"{getattr(self, name)!r}"
                )
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"ClientWeights: floor must lie in [0, 1), found {self.floor!r}; it is relative to "
                "the uniform weight, such as 0.1"
            )

    def weigh(
        self,
        norms: Mapping[Client, float],
        examples: Mapping[Client, float] | None = None,
        beliefs: Mapping[Client, Any] | None = None,
    ) -> Round[Client]:
        """The multipliers of one round.

        Args:
            norms: ‖Δ_k‖ of the clients that answered, zero or more.
            examples: The number of examples of each; for ``"examples"`` only.
            beliefs: ``Round.beliefs`` of the last round; None in the first.

        Raises:
            ValueError: A norm is negative, or a number of examples is missing or not positive.

        Example:
            >>> from gaba.stabilisers import LogEMA
            >>> rule = ClientWeights("examples", LogEMA(0.5), floor=0.1)
            >>> first = rule.weigh({1: 2.0, 2: float("nan")}, examples={1: 50, 2: 70})
            >>> first.weights, first.left_out
            ({1: 1.0}, {2: 'norm is nan'})
        """
        left_out = {k: f"norm is {g}" for k, g in norms.items() if not math.isfinite(g)}
        measured = {k: float(g) for k, g in norms.items() if k not in left_out}
        beliefs = dict(beliefs or {})
        if not measured:
            return Round({}, {}, left_out=left_out, beliefs=beliefs)
        believed = np.array([self._believed(k, g, beliefs) for k, g in measured.items()])
        weights, low = self._floored(self._rule([*measured], examples)(believed))
        pull = float(weights @ believed)
        length = float(np.median(believed)) / pull if self.scale == "median" and pull > 0 else 1.0
        return Round(
            measured,
            dict(zip(measured, (length * weights).tolist(), strict=True)),
            frozenset(k for k, is_low in zip(measured, low, strict=True) if is_low),
            left_out,
            beliefs,
        )

    def _believed(self, client: Client, norm: float, beliefs: dict[Client, Any]) -> float:
        """What is now believed of the client, which ``beliefs`` then holds."""
        state = beliefs.get(client, self.believe.init(1))
        told = torch.tensor([norm], dtype=torch.float64)
        value, beliefs[client] = self.believe.update(told, state)
        return value.item()

    def _rule(self, clients: list[Client], examples: Mapping[Client, float] | None) -> Rule:
        if self.proportional_to == "clients":
            return InverseNorm()
        found = examples or {}
        absent = [client for client in clients if client not in found]
        if absent:
            raise ValueError(
                "ClientWeights: examples must give a number for each client, found none for "
                f"{absent}; have the clients return it, or use proportional_to='clients'"
            )
        return Targets([found[client] for client in clients])

    def _floored(self, weights: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[bool]]:
        if not self.floor:
            return weights, [False] * len(weights)
        floor = Floor(self.floor / len(weights), mode="project")
        bounded, state = floor.update(torch.from_numpy(weights), floor.init(len(weights)))
        return bounded.numpy(), state.saturated.tolist()


def update_norm(before: Arrays, after: Arrays) -> float:
    """The length ‖after − before‖₂ of a client's update, over all arrays together, in float64.

    Arrays of integers or booleans (counters) are left out.

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
    before: Arrays, models: Mapping[Client, Arrays], multipliers: Mapping[Client, float]
) -> dict[str, np.ndarray[Any, Any]]:
    """The new global model, before + Σ_k m_k Δ_k with Δ_k = model_k − before.

    Each array keeps its dtype. Integers (counters) become the rounded mean with the weights
    m_k / Σ m. A model without a multiplier is not used.

    Raises:
        ValueError: There is no multiplier, a client of one has no model, or models differ in their
            arrays.

    Example:
        >>> import numpy as np
        >>> models = {"a": {"w": np.array([2.0])}, "b": {"w": np.array([4.0])}}
        >>> merge({"w": np.array([1.0])}, models, {"a": 1.5, "b": 0.5})
        {'w': array([4.])}
    """
    absent = [client for client in multipliers if client not in models]
    if not multipliers or absent:
        raise ValueError(
            f"merge: every multiplier must have a model and there must be one, found "
            f"{len(multipliers)} multipliers, no model of {absent}; keep the old model if no "
            "client takes part"
        )
    for client in multipliers:
        _check_alike(before, models[client])
    merged: dict[str, np.ndarray[Any, Any]] = {}
    for name, old in before.items():
        whole = not np.issubdtype(old.dtype, np.floating)
        parts = _weights(multipliers) if whole else multipliers
        start = old.astype(np.float64)
        new = start.copy()
        for client, part in parts.items():
            new += part * (models[client][name].astype(np.float64) - start)
        merged[name] = (np.rint(new) if whole else new).astype(old.dtype)
    return merged


def _weights(multipliers: Mapping[Client, float]) -> dict[Client, float]:
    total = sum(multipliers.values())
    return {client: multiplier / total for client, multiplier in multipliers.items()}


def _check_alike(one: Arrays, other: Arrays) -> None:
    shapes, others = ({name: a.shape for name, a in part.items()} for part in (one, other))
    if shapes != others:
        wrong = {name for name, _ in {*shapes.items()} ^ {*others.items()}}
        raise ValueError(
            f"arrays must have the same names and shapes in every model, found a difference in "
            f"{', '.join(sorted(wrong))}; send whole models of one kind"
        )
