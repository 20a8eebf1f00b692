"""What a run's settings say: its data, its windows and its network, each in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaba.turbofan import data, windows
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.own import own_fleet

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from gaba.turbofan._config import TrainConfig
    from gaba.turbofan.normalise import Normaliser


def fleet_of(
    config: TrainConfig,
    given: Fleet | pd.DataFrame | None = None,
    data_dir: str | Path | None = None,
) -> Fleet:
    """The data of a run: those given, or those that its settings name.

    Raises:
        ValueError: The data given have other columns than the run.
    """
    if given is None:
        return data.load(config.subset, data_dir or config.data_dir, config.columns)
    if not isinstance(given, Fleet):
        return own_fleet(given, config.columns, config.subset)
    if given.columns != config.columns:
        raise ValueError(
            f"columns must be those of the fleet, {', '.join(given.columns.needed)}, found "
            f"{', '.join(config.columns.needed)} in the settings: give TrainConfig columns="
        )
    return given


def prepared(
    config: TrainConfig, fleet: Fleet, normaliser: Normaliser | None = None
) -> windows.Prepared:
    """The windows of all its engines; ``normaliser`` is that of the run, if it has one yet."""
    return windows.prepare(
        fleet,
        seed=config.seed,
        normaliser=normaliser,
        conditions=config.conditions,
        capped_share=config.capped_share,
        **_how(config),
    )


def cut(
    config: TrainConfig, frame: pd.DataFrame, normaliser: Normaliser, rul: ArrayLike = 0
) -> windows.Windows:
    """Every window of the engines of ``frame``; see :func:`gaba.turbofan.windows.cut`."""
    return windows.cut(frame, normaliser, rul, **_how(config))


def network(config: TrainConfig) -> TurbofanNet:
    """Its network, as it starts."""
    return TurbofanNet(
        config.size,
        dropout=config.dropout,
        inputs=len(config.columns.inputs),
        cap=config.rul_cap,
    )


def _how(config: TrainConfig) -> dict[str, Any]:
    return {"window": config.window, "cap": config.rul_cap, "smoothing": config.smoothing}
