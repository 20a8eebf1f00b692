"""TorchJD's weightings as rules of this library, and our rules as weightings of TorchJD.

TorchJD's weights have any sum: ``scale="rule"`` of the Balancer keeps it, and with it the length of
TorchJD's update; every other ``scale`` says itself how long the update is.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from gaba.extras import needs
from gaba.rules import (
    AnyWeighting,
    Measured,
    Needs,
    StatefulWeighting,
    Weighting,
    by_name,
)

with needs("the bridge to TorchJD needs", "bench", "torchjd"):
    from torchjd import aggregation
    from torchjd.linalg import PSDMatrix

from gaba.integrations._torchjd_memory import Memory, keepers
from gaba.integrations._torchjd_root import Root

__all__ = ["FromTorchJD", "TheirState", "ToTorchJD"]

Theirs: TypeAlias = (
    "aggregation.Weighting[Any] | aggregation.WeightedAggregator | aggregation.ConFIG"
)

_NEEDS_MORE = ("ExcessMTLWeighting", "MoDoWeighting", "SDMGradWeighting")
"""Those that look at single entries of a Jacobian, or at the gradients of several batches."""

_STRIDE = 1_000_003
"""How far apart two seeds are, in calls."""


@final
@dataclass(frozen=True)
class TheirState:
    """What is remembered for a weighting of TorchJD.

    Attributes:
        calls: (), how often it was asked; with the seed it says what is drawn next.
        memory: a tuple of tensors for each part that remembers something, such as the φ (K, K) of
            GradVac.
    """

    calls: Tensor
    memory: tuple[Memory, ...]


@final
@dataclass(frozen=True)
class FromTorchJD(StatefulWeighting[TheirState]):
    """A weighting of TorchJD as a rule: the weights w (K,) that it gives for the Gramian G (K, K).

    The Balancer brings them to the simplex, λ = w / Σ_k w_k, and with ``scale="rule"`` the update
    is Jᵀw, TorchJD's own. Every weighting that TorchJD lists for its ``autogram`` engine will do,
    and besides ``NashMTL`` and ``ConFIG``, which take the Jacobian J (K, P) but look at inner
    products of its rows only: they are given S (K, r) with S Sᵀ = G, and w solves Sᵀw = A(S), so
    that Jᵀw = A(J). A weight may be negative (``IMTLG``, ``AlignedMTL``, ``ConFIG``); it is passed
    on as it is. K = 1 gives weight 1, and a G that is not finite NaN. The numbers are worked out on
    the host in float64: unlike our own rules this waits for the device.

    What TorchJD's weighting remembers (``GradVac``, ``CRMOGMWeighting``, ``PCD``, ``NashMTL``) is
    part of the Balancer's state, saved and forgotten with it, and the weighting itself never
    changes. What it draws at random (``PCGrad``, ``GradVac``, ``Random``) it draws in call n with
    the seed ``1_000_003 * seed + n``, and the global generator is left alone: a run that is resumed
    goes on bit for bit. Of a vector with an entry for each task (``pref_vector``) a step has the
    entries of the tasks present.

    Called with Gramians (..., K, K), it gives the weights (..., K) of a first step, brought to
    sum 1; NaN where they have no positive sum.

    Args:
        weighting: A weighting, or an aggregator that is made of one, such as ``UPGrad()``.
        seed: Of what is drawn at random.

    Raises:
        TypeError: ``weighting`` is neither, takes more than a Gramian, or has a memory of a kind
            that is not known here.

    Source: TorchJD, https://torchjd.org; the paper is Quinton and Rey 2024, arXiv:2406.16232.

    Example:
        >>> import numpy as np
        >>> from torchjd.aggregation import MGDAWeighting
        >>> rule = FromTorchJD(MGDAWeighting())
        >>> rule(np.diag([1.0, 4.0])).round(6).tolist()
        [0.8, 0.2]
    """

    weighting: Theirs
    seed: int = 0
    needs: ClassVar[Needs] = "gramian"

    def __post_init__(self) -> None:
        inner: Any = self.weighting
        if isinstance(inner, aggregation.WeightedAggregator):
            inner = getattr(inner, "gramian_weighting", inner.weighting)
        if not isinstance(inner, (aggregation.Weighting, aggregation.ConFIG)):
            raise TypeError(
                f"weighting must be a weighting of TorchJD or an aggregator made of one, found "
                f"{type(inner).__name__}: pass torchjd.aggregation.UPGradWeighting() or the like"
            )
        for part in inner.modules():
            if type(part).__name__ in _NEEDS_MORE:
                raise TypeError(
                    f"weighting must take a Gramian, found {type(part).__name__}, which takes "
                    "a Jacobian or two batches: use one that torchjd.autogram lists"
                )
        keepers(inner)
        object.__setattr__(self, "weighting", inner)

    def init(self, n_tasks: int) -> TheirState:
        """Nothing remembered, nothing drawn.

        Raises:
            ValueError: the weighting is made for another number of tasks.

        Example:
            >>> from torchjd.aggregation import GradVac
            >>> FromTorchJD(GradVac()).init(2).memory[0][0].tolist()
            [[0.0, 0.0], [0.0, 0.0]]
        """
        state = self._blank(n_tasks)
        everyone = torch.arange(n_tasks)
        self._ask(torch.eye(n_tasks, dtype=torch.float64), state, everyone, n_tasks)
        return state

    def update(
        self, measured: Measured, state: TheirState, present: Tensor | None = None
    ) -> tuple[Tensor, TheirState]:
        """The weights w (K,) as TorchJD gives them, and what is then remembered.

        A task that is missing keeps its part of the memory; PCD's first must not be missing.
        """
        gramian = measured.gramian
        if gramian is None:
            raise ValueError("measured.gramian must be there, found None: measure the Gramian")
        everyone = torch.arange(len(gramian))
        here = everyone if present is None else everyone[present.cpu()]
        seen = _on_host(gramian.detach())[here[:, None], here]
        held = tuple(tuple(_on_host(tensor) for tensor in part) for part in state.memory)
        raw = gramian.new_full((len(gramian),), torch.nan)
        found, after = self._ask(seen, TheirState(state.calls.cpu(), held), here, len(raw))
        raw = raw.index_copy(0, here.to(raw.device), found.to(raw))
        memory = tuple(
            tuple(new.to(old) for new, old in zip(*parts, strict=True))
            for parts in zip(after.memory, state.memory, strict=True)
        )
        return raw, TheirState(after.calls.to(state.calls), memory)

    def __call__(self, measured: Any, /) -> Any:
        """Weights (..., K) of a first step for the Gramian ``measured`` (..., K, K), of sum 1."""
        if not isinstance(measured, Tensor):
            return self(torch.as_tensor(measured, dtype=torch.float64)).numpy()
        raw = self.raw(measured)
        total = raw.sum(-1, keepdim=True)
        return torch.where(total > 0, raw / total, torch.full_like(raw, torch.nan))

    def raw(self, measured: Any, /) -> Any:
        """Weights (..., K) of a first step, with the sum that TorchJD gives them.

        Example:
            >>> import numpy as np
            >>> from torchjd.aggregation import PCGrad
            >>> FromTorchJD(PCGrad()).raw(np.diag([1.0, 4.0])).tolist()
            [1.0, 1.0]
        """
        if not isinstance(measured, Tensor):
            return self.raw(torch.as_tensor(measured, dtype=torch.float64)).numpy()
        k = measured.shape[-1]
        state = self._blank(k)
        seen = [Measured(one.diagonal(), gramian=one) for one in measured.reshape(-1, k, k)]
        rows = [self.update(one, state)[0] for one in seen]
        return torch.stack(rows or [measured.new_empty(0)]).reshape(measured.shape[:-1])

    def _blank(self, n_tasks: int) -> TheirState:
        memory = tuple(keeper.blank(part, n_tasks) for part, keeper in keepers(self.weighting))
        return TheirState(torch.tensor(0), memory)

    def _ask(
        self, gramian: Tensor, state: TheirState, here: Tensor, n_tasks: int
    ) -> tuple[Tensor, TheirState]:
        """The weights of the k tasks ``here`` of K, for their Gramian (k, k) on the host."""
        if not bool(gramian.isfinite().all()):
            return gramian.new_full((len(here),), torch.nan), state
        if len(here) == 1:
            return gramian.new_ones(1), state
        theirs = copy.deepcopy(self.weighting)
        _bring_vectors(theirs, here, n_tasks)
        pairs = list(zip(keepers(theirs), state.memory, strict=True))
        for (part, keeper), memory in pairs:
            keeper.put(part, memory, here, gramian)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((_STRIDE * self.seed + int(state.calls)) % 2**32)
            weights = _weights_of(theirs, gramian)
        after = tuple(keeper.take(part, memory, here) for (part, keeper), memory in pairs)
        return weights.to(gramian), TheirState(state.calls + 1, after)


def _on_host(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float64 if tensor.is_floating_point() else tensor.dtype)


def _bring_vectors(theirs: nn.Module, here: Tensor, n_tasks: int) -> None:
    """Bring the vectors over tasks that are among the settings to the host and to ``here``."""
    for part in theirs.modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                whole = value.shape == (n_tasks,) and len(here) < n_tasks
                vars(part)[name] = _on_host(value)[here] if whole else _on_host(value)


def _weights_of(theirs: Any, gramian: Tensor) -> Tensor:
    if isinstance(theirs, aggregation.ConFIG):
        root = Root.of(gramian)
        return root.weights_of(theirs(root.matrix))
    if any(type(part).__name__ == "_NashMTLWeighting" for part in theirs.modules()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the solver, about its own speed
            return theirs(Root.of(gramian).matrix)
    return theirs(gramian)


@final
class ToTorchJD(aggregation.Weighting[PSDMatrix]):
    """A rule of ours as a weighting of TorchJD, for its aggregators and its ``autogram`` engine.

    The rule gets the Gramian G (K, K) of the Jacobian, or the norms g_k = √G_kk if it asks for
    norms; the weights (K,) have sum 1, the dtype and the device of G.

    Args:
        rule: A rule, or the name of one.

    Raises:
        ValueError: The rule needs the losses, which TorchJD does not give.
        TypeError: The rule has a memory, for which TorchJD has no place.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import GramianWeightedAggregator
        >>> aggregator = GramianWeightedAggregator(ToTorchJD("inverse"))
        >>> aggregator(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))  # a row for each task
        tensor([0.7500, 0.7500])
    """

    def __init__(self, rule: AnyWeighting | str) -> None:
        super().__init__()
        found = by_name(rule) if isinstance(rule, str) else rule
        if not isinstance(found, Weighting):
            raise TypeError(
                f"rule must have no memory, found {found!r}: TorchJD saves none for a weighting; "
                "use it in a Balancer"
            )
        self.rule = found
        if self.rule.needs == "losses":
            raise ValueError(
                f"rule must need norms or the Gramian, found {self.rule!r}, which needs the "
                "losses: TorchJD does not give them to a weighting"
            )

    def forward(self, stat: PSDMatrix, /) -> Tensor:
        """Weights (K,) for the Gramian ``stat`` (K, K)."""
        with torch.no_grad():
            gramian = stat.detach()
            norms = gramian.diagonal().clamp(min=0).sqrt()
            return self.rule(gramian if self.rule.needs == "gramian" else norms).to(stat.dtype)

    def extra_repr(self) -> str:
        """The rule, for ``repr``."""
        return repr(self.rule)
