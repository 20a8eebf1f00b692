"""Steps of a run in TensorBoard: multipliers, weights, contributions and imbalance as scalars."""

from __future__ import annotations

import os
from types import TracebackType
from typing import final

from gaba import Step
from gaba.extras import needs
from gaba.integrations._logger import scalars

with needs("the TensorBoard sink needs", "tensorboard", "tensorboard"):
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["TensorBoardSink"]


@final
class TensorBoardSink:
    """Writes each step to a ``SummaryWriter``, under ``gaba/weights/rul`` and the like.

    There is a scalar for the loss L_k, norm g_k, multiplier m_k, weight λ_k, contribution c_k,
    share s_k and saturation (0 or 1) of each task k, and for the imbalance, at the number and time
    of the step. What a step lacks (a missing task, norms not measured) is left out. Writing waits
    for the device.

    Args:
        target: a folder, for a writer that this sink opens and closes, or a ``SummaryWriter`` that
            stays open.
        prefix: what the names begin with.
        resume_at: the number of the first step to come. A stopped run continues in its folder, and
            TensorBoard hides what was recorded from that number on. Only for a folder.

    Raises:
        ValueError: ``resume_at`` is given with a writer.

    Example:
        >>> import tempfile, torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
        >>> with tempfile.TemporaryDirectory() as folder, TensorBoardSink(folder) as sink:
        ...     sink.write(balancer.backward({"a": w.sum(), "b": 3 * w.sum()}))
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
        for name, value in scalars(step.asdict(), self.prefix).items():
            self.writer.add_scalar(name, value, global_step=step.step, walltime=step.time)

    def close(self) -> None:
        """Write what is still held back, and close the writer if this sink opened it."""
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
