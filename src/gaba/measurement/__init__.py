"""Losses → norms or Gramian: what is observed of each task's pull on the shared parameters."""

from gaba.measurement._base import Measurement, Observation, TaskGradients
from gaba.measurement._exact import ExactNorms

__all__ = ["ExactNorms", "Measurement", "Observation", "TaskGradients", "by_name"]


def by_name(name: str) -> Measurement:
    """The measurement called ``name``.

    Raises:
        ValueError: no measurement has that name; the message lists those that exist.

    Example:
        >>> by_name("exact")
        ExactNorms()
    """
    known: dict[str, type[Measurement]] = {"exact": ExactNorms}
    if name not in known:
        raise ValueError(f"measurement must be one of {', '.join(known)}, found {name!r}")
    return known[name]()
