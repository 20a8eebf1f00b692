"""``gaba predict``: read engines, predict them with a finished run, print or write the lines."""

from __future__ import annotations

import math
from pathlib import Path

from gaba import turbofan
from gaba.cli.runs import title
from gaba.cli.screen import console, table
from gaba.turbofan import checkpoint
from gaba.turbofan.data import SIMULATED


def predict(
    run_dir: Path,
    file: Path,
    out: Path | None,
    every_cycle: bool,
    plot: Path | None = None,
    failed: bool = False,
) -> None:
    """Predict the engines of ``file``, and write ``out``, or print a table without it.

    Args:
        run_dir: The folder of the run.
        file: The engines.
        out: The CSV file to write.
        every_cycle: Whether there is a line for every cycle.
        plot: The picture to draw of some of them, over their cycles.
        failed: Whether each engine failed at its last cycle, for the picture.

    Raises:
        ValueError: The run is not finished, the file does not hold engines that it can predict, or
            options do not go together.
    """
    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"--plot must be a file that ends in .png, found {plot}")
    if failed and plot is None:
        raise ValueError("--failed needs --plot: it adds the true remaining life to the picture")
    run = turbofan.open_run(run_dir)
    engines = turbofan.read_engines(file)
    try:
        found = run.predict(engines, every_cycle=every_cycle)
        drawn = found if every_cycle or plot is None else run.predict(engines, every_cycle=True)
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
    if plot is not None:
        from gaba.cli.pictures import draw_predicted

        verdict = draw_predicted(run, drawn, file, plot, failed=failed)
        screen.print(f"{plot}: {verdict}", markup=False)
    if math.inf in interval.half_widths:
        screen.print(
            f"some predictions have no interval narrower than 0 to {interval.cap:g}: too few "
            "validation engines were predicted in that range"
        )
