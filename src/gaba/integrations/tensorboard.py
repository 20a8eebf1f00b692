"""Steps of a run in TensorBoard: weights, norms, contributions and imbalance as scalars.

The plain sink of the library is :class:`gaba.RunRecord`; this one is written to in the same way.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, final

from gaba import Step
from gaba.extras import needs

with needs("the TensorBoard sink needs", "tensorboard", "tensorboard"):
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["TensorBoardSink"]

BY_TASK = ("losses", "norms", "weights", "contributions", "saturated")


@final
class TensorBoardSink:
    """Writes each step to a ``SummaryWriter``, under ``gaba/weights/rul`` and the like.

    A scalar is written for the loss L_k, norm g_k, weight λ_k, contribution c_k and saturation (0
    or 1) of each task k, and for the gain and the imbalance, at the number and the time of the
    step; what a step lacks (a missing task, norms not measured) is left out. Waits for the device.

    Args:
        target: A folder, for a writer that this sink opens and closes, or a ``SummaryWriter`` that
            stays with its owner.
        prefix: What the names begin with.
        resume_at: The number of the first step that is to come: a run that was stopped goes on in
            its folder, and what was recorded from that number on is hidden. For a folder only.

    Raises:
        ValueError: ``resume_at`` was given with a writer.

    Example:
        >>> import tempfile, torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
        >>> with tempfile.TemporaryDirectory() as folder, TensorBoardSink(folder) as sink:
        ...     for _ in range(3):
        ...         sink.write(balancer.backward({"a": w.sum(), "b": 3 * w.sum()}))
    """

    def __init__(
        self,
        target: SummaryWriter | str | os.PathLike[str],
        prefix: str = "gaba",
        resume_at: int | None = None,
    ) -> None:
        self.prefix = prefix
        self._owned = not isinstance(target, SummaryWriter)
        if isinstance(target, SummaryWriter):
            if resume_at is not None:
                raise ValueError(
                    f"resume_at={resume_at} is for a folder: make the SummaryWriter with "
                    f"purge_step={resume_at} instead"
                )
            self.writer = target
        else:
            self.writer: SummaryWriter = SummaryWriter(os.fspath(target), purge_step=resume_at)

    def write(self, step: Step) -> None:
        """Write the scalars of ``step``."""
        plain = step.asdict()
        values = {name: plain[name] for name in ("gain", "imbalance")}
        for name in BY_TASK:
            values.update({f"{name}/{task}": value for task, value in plain[name].items()})
        when: dict[str, Any] = {"global_step": step.step, "walltime": step.time}
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(f"{self.prefix}/{name}", float(value), **when)

    def close(self) -> None:
        """Write what is still held back, and close the writer if it was opened here."""
        self.writer.flush()
        if self._owned:
            self.writer.close()

    def __enter__(self) -> TensorBoardSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
