"""Records of engines that are to be predicted: reading them, and checking their conditions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gaba.turbofan import data, tables

if TYPE_CHECKING:
    import pandas as pd

    from gaba.turbofan.normalise import Normaliser

__all__ = ["read_engines"]


def read_engines(path: str | Path) -> pd.DataFrame:
    """Read a CSV file with a header, or a file in the text layout of C-MAPSS.

    Raises:
        ValueError: The name ends in neither ``.csv`` nor ``.txt`` nor ``.txt.xz``, or the file
            cannot be read as what its name says.

    >>> read_engines("engines.xlsx")
    Traceback (most recent call last):
        ...
    ValueError: engines.xlsx must be a .csv file with a header, or a .txt file as of C-MAPSS
    """
    path = Path(path)
    if path.name.endswith((".txt", ".txt.xz")):
        return data.read(path)
    if path.suffix != ".csv":
        raise ValueError(f"{path} must be a .csv file with a header, or a .txt file as of C-MAPSS")
    return tables.read_csv(path)


def check_conditions(engines: pd.DataFrame, names: Any, normaliser: Normaliser) -> None:
    """Refuse rows whose settings are of no operating condition that ``normaliser`` was fitted to.

    Raises:
        ValueError: There is one.
    """
    settings = list(normaliser.columns.settings)
    for row in np.flatnonzero(~normaliser.knows(engines))[:1]:
        at = engines.iloc[row]
        known = "; ".join(_said(centre, normaliser.reach) for centre in normaliser.centres)
        raise ValueError(
            f"unit {names[int(at['unit'])]}, cycle {at['cycle']:g}: unknown operating condition, "
            f"{', '.join(settings)} must be near one that the run has seen ({known}), "
            f"found {_said(at[settings], normaliser.reach)}"
        )


def _said(values: Any, reach: Any) -> str:
    """Each setting with the decimals that matter within its reach."""
    digits = [1 - math.floor(math.log10(width)) if width > 0 else 9 for width in reach]
    rounded = (round(float(value), d) + 0.0 for value, d in zip(values, digits, strict=True))
    return ", ".join(f"{value:g}" for value in rounded)
