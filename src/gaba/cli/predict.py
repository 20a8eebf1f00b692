"""``gaba predict``: read engines, predict them with a finished run, print or write the lines."""

from __future__ import annotations

import math
from pathlib import Path

from gaba import turbofan
from gaba.cli.runs import title
from gaba.cli.screen import console, table
from gaba.turbofan import checkpoint
from gaba.turbofan.data import SIMULATED


def predict(run_dir: Path, file: Path, out: Path | None, every_cycle: bool) -> None:
    """Predict the engines of ``file``, and write ``out``, or print a table without it.

    Raises:
        ValueError: The run is not finished, or the file does not hold engines that it can predict.
    """
    run = turbofan.open_run(run_dir)
    engines = turbofan.read_engines(file)
    try:
        found = run.predict(engines, every_cycle=every_cycle)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    screen, interval = console(), run.interval
    heading = title({**vars(run.config), "simulated": run.config.subset == SIMULATED})
    screen.print(f"model: {heading}", markup=False)
    nominal = f"{interval.coverage:.0%}"
    if out is not None:
        text = found.to_csv(index=False)
        checkpoint.write_atomically(out, lambda opened: opened.write(text.encode()))
        screen.print(
            f"{out}: {len(found)} lines of {found['unit'].nunique()} engines; rul_low to rul_high "
            f"is a {nominal} interval",
            markup=False,
        )
    else:
        names = turbofan.HEALTH
        made = table("unit", "cycle", "RUL (cycles)", f"{nominal} interval", "health", *names)
        for line in found.to_dict("records"):
            high = "or more" if line["rul_high"] >= interval.cap else f"to {line['rul_high']:.0f}"
            made.add_row(
                str(line["unit"]),
                str(line["cycle"]),
                f"{line['rul']:.1f}",
                f"{line['rul_low']:.0f} {high}",
                line["health"],
                *(f"{line[f'p_{name}']:.1%}" for name in names),
            )
        screen.print(made)
    if math.inf in interval.half_widths:
        screen.print(
            f"some predictions have no interval narrower than 0 to {interval.cap:g}: too few "
            "validation engines were predicted in that range"
        )
