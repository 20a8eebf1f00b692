"""How the ranks of a distributed run come to one decision: the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

How = Literal["exact", "sketch"]


@final
@dataclass(frozen=True)
class Sync:
    """How measurements become those of the gradient averaged over all ranks.

    DistributedDataParallel and FSDP hand the optimizer the gradient of L̄_k, the mean of the ranks'
    losses, in which a loss that a rank lacks is 0. Norms, Gramian and losses are of that. Each rank
    must call ``balancer.backward`` equally often; they exchange 2K + 3 numbers a step, and in a
    measured one K gradients of θ (``ExactNorms``) or a few numbers a task (the cheaper ones).

    Args:
        how: ``"exact"``: per-task gradients are averaged in buckets, while the next task's pass
            runs. ``"sketch"``: each is first brought down to ``width`` numbers by a random matrix
            that is the same on every rank; the squared norm of their mean is an unbiased estimate,
            with a relative variance of at most 2/width.
        width: m ≥ 1, how many numbers are left of a gradient: at 4096 the norm is off by 1.1 %.
        bucket: bytes that travel at once.
        seed: of the random matrix, which is another one in each step.
        group: the process group; ``None`` is the default one. It is not saved with anything.

    Raises:
        ValueError: a setting breaks its rule.

    Source: Charikar, Chen and Farach-Colton, Finding Frequent Items in Data Streams, 2002.

    Example:
        >>> from gaba.ranks import Sync
        >>> Sync("sketch", width=1024)
        Sync(how='sketch', width=1024, bucket=26214400, seed=0)
    """

    how: How = "exact"
    width: int = 4096
    bucket: int = 25 * 2**20
    seed: int = 0
    group: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise ValueError(f"how must be one of {', '.join(get_args(How))}, found {self.how!r}")
        for name, least in (("width", 1), ("bucket", 1024)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Sync, (self.how, self.width, self.bucket, self.seed)  # a group cannot be saved


def by_name(sync: Sync | str | bool) -> Sync | None:
    """The settings called ``sync``, or ``None`` for ``False``: each rank by itself.

    Raises:
        ValueError: there is no such name.

    Example:
        >>> by_name("auto"), by_name(False)
        (Sync(how='exact', width=4096, bucket=26214400, seed=0), None)
    """
    if isinstance(sync, Sync):
        return sync
    if sync is False:
        return None
    if sync in ("auto", "exact"):
        return Sync()
    if sync == "sketch":
        return Sync("sketch")
    raise ValueError(f"sync must be one of auto, exact, sketch, False or a Sync, found {sync!r}")
