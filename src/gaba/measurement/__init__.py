"""Losses → norms or Gramian: what is observed of each task's pull on the shared parameters."""

from gaba.autograd.losses import check_choice
from gaba.measurement.base import Measurement, Observation, Request, TaskGradients
from gaba.measurement.element_norms import ElementNorms
from gaba.measurement.exact import ExactNorms
from gaba.measurement.half_batch import HalfBatch, SignalAndNoise
from gaba.measurement.output_norms import OutputNorms
from gaba.measurement.smoothed import AveragedGradients, SmoothedGradients
from gaba.measurement.sub_batch_norms import SubBatchNorms
from gaba.measurement.tracked import Tracked
from gaba.measurement.watched import Watched

__all__ = [
    "NAMES",
    "AveragedGradients",
    "ElementNorms",
    "ExactNorms",
    "HalfBatch",
    "Measurement",
    "Observation",
    "OutputNorms",
    "Request",
    "SignalAndNoise",
    "SmoothedGradients",
    "SubBatchNorms",
    "TaskGradients",
    "Tracked",
    "Watched",
    "by_name",
]


NAMES: dict[str, type[Measurement]] = {
    "exact": ExactNorms,
    "half-batch": HalfBatch,
    "tracked": Tracked,
}
"""The measurements that have a name."""


def by_name(name: str) -> Measurement:
    """The measurement called ``name``.

    Raises:
        ValueError: no measurement has that name; the message suggests the nearest.

    Example:
        >>> by_name("exact")
        ExactNorms(mode='store')
    """
    check_choice("measure", name, tuple(NAMES))
    return NAMES[name]()
