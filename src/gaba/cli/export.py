"""``gaba export``: write the model of a finished run as one file for other programs."""

from __future__ import annotations

from pathlib import Path

from gaba import turbofan
from gaba.cli.screen import console
from gaba.turbofan.export import ENDINGS, Format


def export(run_dir: Path, format: Format, out: Path | None) -> None:
    """Write the file, and say what goes in and what comes out.

    Raises:
        ValueError: The run is not finished, or the name of the file does not fit its format.
        ImportError: The extra is not installed.
    """
    run = turbofan.open_run(run_dir)
    path = run.export(out or run_dir / f"model{ENDINGS[format]}", format)
    features = run.config.columns.inputs
    screen = console()
    screen.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", markup=False)
    screen.print(
        f"in: records, float64 (batch, cycles, {len(features)}), raw values of each unit from its "
        f"first cycle on: {', '.join(features)}",
        markup=False,
    )
    screen.print(
        f"out: rul, float32 (batch,), in cycles; health, float32 (batch, 3), the probabilities of "
        f"{', '.join(turbofan.HEALTH)}",
        markup=False,
    )
