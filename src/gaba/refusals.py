"""Losses that a method can do nothing with, such as a negative one under a logarithm: refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor


@final
class Refusals:
    """Refuses losses by name: on the host in that very step, on a GPU in the next one.

    Reading a GPU at once would stall it. Nothing is learnt from such a step in either case.

    Example:
        >>> refusals, losses = Refusals(), torch.tensor([2.0, -1.0])
        >>> refusals.check(losses <= 0, losses, ["rul", "nll"], "above 0", "scale-invariant")
        Traceback (most recent call last):
            ...
        ValueError: losses['nll'] must be above 0 with the method 'scale-invariant', found -1: ...
    """

    def __init__(self) -> None:
        self._waiting: tuple[Tensor, Tensor, Any] | None = None

    def check(
        self, unfit: Tensor | None, losses: Tensor, tasks: Sequence[str], takes: str, method: str
    ) -> None:
        """Refuse the losses (K,) in the mask ``unfit`` that are finite.

        Raises:
            ValueError: there is one now, or there was one in the step before.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting[2].synchronize()  # long over: it only keeps the host within a step of the GPU
            _refuse(waiting[0], waiting[1], tasks, takes, method)
        if unfit is None:
            return
        unfit = unfit & losses.isfinite()
        if not losses.is_cuda:
            _refuse(unfit, losses, tasks, takes, method)
            return
        copies = [part.to("cpu", non_blocking=True) for part in (unfit, losses)]
        over = torch.cuda.Event()
        over.record(torch.cuda.current_stream(losses.device))
        self._waiting = copies[0], copies[1], over

    def __getstate__(self) -> dict[str, Any]:
        return {"_waiting": None}


def _refuse(unfit: Tensor, losses: Tensor, tasks: Sequence[str], takes: str, method: str) -> None:
    found = unfit.tolist()
    if any(found):
        k = found.index(True)
        raise ValueError(
            f"losses[{tasks[k]!r}] must be {takes} with the method {method!r}, found "
            f"{losses[k].item():g}: use method='gaba', which looks at gradients and takes any "
            f"loss; or give a loss that is so, or observed=[{tasks[k]!r}]. Leave a task out, or "
            "pass None, in a batch without it"
        )
