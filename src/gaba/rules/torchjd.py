"""TorchJD's weightings as rules of this library.

TorchJD's weights have any sum and sign. With ``scale="rule"`` a Balancer takes them as they are, so
the update is TorchJD's own; every other ``scale`` gives the update another length.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from gaba.extras import needs
from gaba.pieces import Seen
from gaba.rules.rule import Needs, Rule

with needs("the bridge to TorchJD needs", "bench", "torchjd"):
    from torchjd import aggregation

from gaba.rules._torchjd_memory import Memory, keepers

__all__ = ["FromTorchJD", "TheirState", "aggregation"]

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
        self._next(torch.eye(n_tasks, dtype=torch.float64), state)  # refuses what does not fit
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
        few = whole[here[:, None], here]
        raw = whole.new_full((len(whole),), torch.nan)
        if not bool(few.isfinite().all()):
            return raw.to(gramian), state
        if len(here) < 2:
            return raw.index_fill(0, here, 1.0).to(gramian), state
        theirs = copy.deepcopy(self.weighting)
        _bring_vectors(theirs, here, len(whole))
        held = [
            (keeper, before, tuple(map(_on_host, before)))
            for keeper, before in zip(keepers(theirs), state.memory, strict=True)
        ]
        for keeper, _, memory in held:
            keeper.put(memory, here, few)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            seed = _STRIDE * int(state.seed) + int(state.calls)
            torch.default_generator.manual_seed(seed % 2**32)
            raw = raw.index_copy(0, here, _weights_of(theirs, few).to(raw))
        after = tuple(
            tuple(new.to(old) for new, old in zip(keeper.take(memory, here), before, strict=True))
            for keeper, before, memory in held
        )
        return raw.to(gramian), TheirState(state.seed, state.calls + 1, after)


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
