"""TorchJD's weightings as rules of this library, and our rules as weightings of TorchJD.

TorchJD's weights have any sum and sign. With ``scale="rule"`` a Balancer takes them as they are, so
the update is TorchJD's own; every other ``scale`` gives the update another length.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from gaba import methods
from gaba.extras import needs
from gaba.rules import Needs, Rule, Seen

with needs("the bridge to TorchJD needs", "bench", "torchjd"):
    from torchjd import aggregation
    from torchjd.linalg import PSDMatrix

from gaba.integrations._torchjd_memory import Memory, keepers

__all__ = ["FromTorchJD", "TheirState", "ToTorchJD"]

Theirs: TypeAlias = (
    "aggregation.Weighting[Any] | aggregation.WeightedAggregator | aggregation.ConFIG"
)

_NEEDS_MORE = ("ExcessMTLWeighting", "MoDoWeighting", "SDMGradWeighting")
"""These look at single entries of a Jacobian, or at the gradients of several batches."""

_STRIDE = 1_000_003
"""How many calls lie between two seeds."""


@final
@dataclass(frozen=True)
class TheirState:
    """What is remembered for a weighting of TorchJD.

    Attributes:
        seed: (), of what it draws at random.
        calls: (), how often it was asked; with the seed it fixes what is drawn next.
        memory: for each part that remembers something a tuple of tensors, such as φ (K, K) of
            GradVac.
    """

    seed: Tensor
    calls: Tensor
    memory: tuple[Memory, ...]


@final
@dataclass(frozen=True)
class FromTorchJD(Rule):
    """A weighting of TorchJD as a rule: its weights w (K,) for the Gramian G (K, K).

    Weights may be negative or 0. With ``scale="rule"`` the update is Jᵀw, TorchJD's own. The
    weights come from the host in float64, so this waits for the device. A task alone has weight 1;
    a G that is not finite gives NaN.

    The memory (``GradVac``, ``CRMOGMWeighting``, ``PCD``, ``NashMTL``) is part of the Balancer's
    state; ``weighting`` itself never changes. Call n draws with the seed ``1_000_003 * seed + n``
    and leaves the global generator alone.

    Args:
        weighting: one that ``torchjd.autogram`` lists, ``NashMTL``, ``ConFIG``, or an aggregator
            made of one, such as ``UPGrad()``.
        seed: of what is drawn at random.

    Raises:
        TypeError: ``weighting`` takes more than a Gramian, or its memory is unknown.

    Source: TorchJD, https://torchjd.org; Quinton and Rey 2024, arXiv:2406.16232.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import MGDAWeighting
        >>> FromTorchJD(MGDAWeighting())(torch.diag(torch.tensor([1.0, 4.0]))).round(decimals=6)
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """

    weighting: Theirs
    seed: int = 0
    needs: ClassVar[Needs] = "gramian"
    defined_at_zero: ClassVar[bool] = True

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
        memory = tuple(keeper.blank(n_tasks) for keeper in keepers(self.weighting))
        state = TheirState(torch.tensor(self.seed), torch.tensor(0), memory)
        self._ask(torch.eye(n_tasks, dtype=torch.float64), state, torch.arange(n_tasks))
        return state

    def update(self, seen: Seen, state: TheirState) -> tuple[Tensor, TheirState]:
        """The weights (K,) for the Gramian of the tasks present, and what is remembered then.

        Of many Gramians (..., K, K) each is the next step after ``state``, which stays as it is.
        """
        gramian = seen.gramian
        assert gramian is not None
        if gramian.ndim == 2:
            return self._next(gramian, state)
        each = [self._next(one, state)[0] for one in gramian.reshape(-1, *gramian.shape[-2:])]
        rows = torch.stack(each) if each else gramian.new_empty(0)
        return rows.reshape(gramian.shape[:-1]), state

    def _next(self, gramian: Tensor, state: TheirState) -> tuple[Tensor, TheirState]:
        whole = _on_host(gramian)
        here = (~whole.diagonal().isnan()).nonzero().flatten()
        memory = tuple(tuple(map(_on_host, part)) for part in state.memory)
        few, after = self._ask(whole, TheirState(state.seed, state.calls, memory), here)
        raw = whole.new_full((len(whole),), torch.nan).index_copy(0, here, few)
        memory = tuple(
            tuple(new.to(old) for new, old in zip(*parts, strict=True))
            for parts in zip(after.memory, state.memory, strict=True)
        )
        return raw.to(gramian), TheirState(state.seed, after.calls.to(state.calls), memory)

    def _ask(self, whole: Tensor, state: TheirState, here: Tensor) -> tuple[Tensor, TheirState]:
        """The weights (k,) of the tasks ``here`` of K, for the Gramian (K, K) on the host."""
        gramian = whole[here[:, None], here]
        if not bool(gramian.isfinite().all()):
            return gramian.new_full((len(here),), torch.nan), state
        if len(here) < 2:
            return gramian.new_ones(len(here)), state
        theirs = copy.deepcopy(self.weighting)
        _bring_vectors(theirs, here, len(whole))
        pairs = list(zip(keepers(theirs), state.memory, strict=True))
        for keeper, memory in pairs:
            keeper.put(memory, here, gramian)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            seed = _STRIDE * int(state.seed) + int(state.calls)
            torch.default_generator.manual_seed(seed % 2**32)
            weights = _weights_of(theirs, gramian)
        after = tuple(keeper.take(memory, here) for keeper, memory in pairs)
        return weights.to(gramian), TheirState(state.seed, state.calls + 1, after)


def _on_host(tensor: Tensor) -> Tensor:
    dtype = torch.float64 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype)


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
@dataclass(frozen=True)
class Root:
    """S (K, r) with S Sᵀ = G, r the rank of G: it stands for the Jacobian that nobody holds.

    J = S Q for the Jacobian J (K, P), with Q (r, P) of orthonormal rows. An aggregator A that looks
    at inner products of rows only, and answers in their span, gives A(J) = A(S) Q. So with weights
    w that solve Sᵀ w = A(S), Jᵀ w = A(J).

    With D the norms, G = D C D and C = V Λ Vᵀ, S is D V Λ^½. What is in C below its own rounding
    error is left out, so a gradient of 1e-9 beside one of 1e9 keeps all of its digits.

    Attributes:
        matrix: (K, r), S.
        inverse: (K, r), takes A(S) to w: the pseudoinverse of Sᵀ but for the norms.
    """

    matrix: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, gramian: Tensor) -> Root:
        """The root of ``gramian`` (K, K), finite and positive semi-definite."""
        norms = gramian.diagonal().clamp(min=0).sqrt()
        inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
        values, vectors = torch.linalg.eigh(gramian * inverse[:, None] * inverse)
        noise = 4 * len(norms) * torch.finfo(gramian.dtype).eps * values[-1]
        kept = values > noise
        kept[-1] = True  # at least one column, even if it is zero
        sizes, vectors = values[kept].clamp(min=0).sqrt(), vectors[:, kept]
        back = torch.where(sizes > 0, 1 / sizes, torch.zeros_like(sizes))
        return cls(norms[:, None] * vectors * sizes, inverse[:, None] * vectors * back)

    def weights_of(self, answer: Tensor) -> Tensor:
        """The weights w (K,) with Sᵀ w = ``answer`` (r,)."""
        return self.inverse @ answer


@final
class ToTorchJD(aggregation.Weighting[PSDMatrix]):
    """A rule of ours as a weighting of TorchJD, for its aggregators and its ``autogram`` engine.

    It gets the Gramian G (K, K) of the Jacobian, or the norms √G_kk if it asks for norms. The
    weights (K,) sum to 1 and have the dtype and the device of G.

    Args:
        rule: a rule, or the name of a method that has one.

    Raises:
        ValueError: the rule needs the losses, which TorchJD does not give.
        TypeError: the rule has a memory, for which TorchJD has no place.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import GramianWeightedAggregator
        >>> aggregator = GramianWeightedAggregator(ToTorchJD("inverse"))
        >>> aggregator(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))  # a row for each task
        tensor([0.7500, 0.7500])
    """

    def __init__(self, rule: Rule | str) -> None:
        super().__init__()
        self.rule: Rule = methods.get(rule).rule if isinstance(rule, str) else rule
        with suppress(ValueError):  # made for another number of tasks: the first Gramian tells
            self._refuse_memory(2)
        if self.rule.needs == "losses":
            raise ValueError(
                f"rule must need norms or the Gramian, found {self.rule!r}, which needs the "
                "losses: TorchJD does not give them to a weighting"
            )

    def forward(self, stat: PSDMatrix, /) -> Tensor:
        """Weights (K,) for the Gramian ``stat`` (K, K)."""
        gramian = stat.detach()
        self._refuse_memory(len(gramian))
        norms = gramian.diagonal().clamp(min=0).sqrt()
        return self.rule(gramian if self.rule.needs == "gramian" else norms).to(stat.dtype)

    def _refuse_memory(self, n_tasks: int) -> None:
        state = self.rule.init(n_tasks)
        if not isinstance(state, tuple) or state:
            raise TypeError(
                f"rule must have no memory, found {self.rule!r}: TorchJD saves none for a "
                "weighting; use it in a Balancer"
            )

    def extra_repr(self) -> str:
        """The rule, for ``repr``."""
        return repr(self.rule)
