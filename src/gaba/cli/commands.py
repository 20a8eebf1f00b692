"""What you can type after ``gaba``: each command is a dataclass of its options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, final, get_args

import tyro
from tyro.conf import Positional, arg

from gaba.cli.bench import Bench
from gaba.cli.tune import Tune
from gaba.folders import ENVIRONMENT

RECIPE = "(default: the recipe's)"
RUN = "The folder of a run, or the JSONL file of a gaba.RunRecord."
TOKEN = "GABA_WEB_TOKEN"
Subset: TypeAlias = Literal["FD001", "FD002", "FD003", "FD004", "simulated"]


@final
@dataclass(frozen=True)
class Demo:
    """Show what balancing does: a table of rules, and a proof by autograd."""

    def run(self) -> None:
        """Print both."""
        from gaba import demo

        print(demo.text())


@final
@dataclass(frozen=True)
class Train:
    """Train a model with balanced losses, evaluate it, and show what the balancer did.

    Your own data: gaba train turbofan --csv fleet.csv --unit engine --cycle flight --sensors a,b,c
    """

    application: Positional[Literal["turbofan"]] = "turbofan"
    """What to train: turbofan, the remaining life and health of engines (NASA C-MAPSS)."""
    subset: Subset = "FD001"
    """The data; "simulated" needs no files."""
    csv: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Data of your own: a table of units that ran to failure, a row a unit and cycle."""
    unit: Annotated[str, arg(metavar="COLUMN")] = "unit"
    """The column of it that names the unit."""
    cycle: Annotated[str, arg(metavar="COLUMN")] = "cycle"
    """The column that counts the cycles of a unit."""
    sensors: Annotated[
        str | None, arg(metavar="A,B,C", help_behavior_hint="(default: those of C-MAPSS)")
    ] = None
    """The columns that respond to wear."""
    settings: Annotated[str | None, arg(metavar="X,Y", help_behavior_hint="")] = None
    """The columns that say how the unit was operated; without them there is one condition."""
    conditions: Annotated[int | Literal["auto"], arg(metavar="INT|auto")] = "auto"
    """The operating conditions among the settings; auto counts them (k-means, silhouette)."""
    cap: Annotated[float, arg(metavar="CYCLES")] = 125.0
    """The largest remaining life that is told apart; the classes of health are shares of it."""
    window: Annotated[int, arg(metavar="CYCLES")] = 30
    """The cycles that the model sees."""
    method: Annotated[str, arg(metavar="NAME")] = "gaba"
    """How to balance the losses, a name of `gaba methods`: gaba (the default of the library), paper
    (as published), uniform (the plain sum), fixed:M,M (multipliers of rul and health), from-run:RUN
    (where another run ended), ..."""
    compare: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="")] = None
    """Train several methods in place of one, with one seed and the same settings: a run each in
    RUN/METHOD, one table, and one picture, such as --compare gaba,paper,uniform."""
    sample_weights: bool = False
    """Weigh RUL errors near failure more: AMNL with --method uniform, GRACE with paper."""
    size: Literal["small", "paper"] = "small"
    """The model: small has about 0.3 million parameters, paper about 3.5 million."""
    seed: int = 0
    """Decides the split, the initial parameters, the order of the windows and the dropout."""
    data_dir: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: $GABA_DATA, else data or ../shared/data)"),
    ] = None
    """The folder with the C-MAPSS files."""
    run_dir: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: runs/SUBSET-METHOD-SIZE-seedSEED)"),
    ] = None
    """The folder for settings, history, metrics, checkpoint and pictures."""
    resume: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Continue the run or the comparison in this folder from its last checkpoint, with its own
    settings."""
    steps: Annotated[int | None, arg(metavar="INT", help_behavior_hint=RECIPE)] = None
    """The most steps of the optimizer."""
    steps_per_epoch: Annotated[int | None, arg(metavar="INT", help_behavior_hint=RECIPE)] = None
    """Steps between two validations; each writes a checkpoint."""
    batch_size: Annotated[int | None, arg(metavar="INT", help_behavior_hint=RECIPE)] = None
    """Windows in a step."""
    learning_rate: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=RECIPE)] = None
    """Of AdamW, after the warm-up."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: cpu)")] = None
    """The torch device."""

    def run(self) -> None:
        """Train, and print the report."""
        from gaba.cli.train import train

        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        own = ("application", "run_dir", "resume", "compare")
        settings: dict[str, Any] = {
            name: str(value) if isinstance(value, Path) else value
            for name, (value, default) in values.items()
            if name not in own and value != default
        }
        train(settings, self.run_dir, self.resume, self.compare)


@final
@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run's best model on the test engines again, and redraw its pictures."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """The folder of the run, finished or not."""
    data_dir: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: where the run found them)")
    ] = None
    """The folder with the C-MAPSS files."""

    def run(self) -> None:
        """Evaluate, and print the report."""
        from gaba.cli.train import evaluate

        evaluate(self.run_dir, self.data_dir)


@final
@dataclass(frozen=True)
class Predict:
    """Predict engines with a finished run: remaining life, its interval, and health."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """The folder of the run."""
    file: Annotated[Path, arg(metavar="FILE")]
    """The engines: .csv with the columns of the run (C-MAPSS: unit, cycle, setting1, s2, ...), or
    .txt as of C-MAPSS."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """The CSV file to write; without it the predictions are printed."""
    every_cycle: bool = False
    """A line for every cycle, from the first whole window of an engine on, not only its last."""
    plot: Annotated[Path | None, arg(metavar="PNG", help_behavior_hint="")] = None
    """The picture to draw: remaining life over cycles, with the interval, of up to 6 engines."""
    failed: bool = False
    """The engines failed at their last cycles: the picture shows the truth and what is late."""

    def run(self) -> None:
        """Predict, and print or write the lines."""
        from gaba.cli.predict import predict

        predict(self.run_dir, self.file, self.out, self.every_cycle, self.plot, self.failed)


@final
@dataclass(frozen=True)
class Export:
    """Write the model of a finished run as one file for other programs, normaliser included."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """The folder of the run."""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx for onnxruntime and others, torch for torch.export.load."""
    out: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: model.onnx or .pt2 in RUN)")
    ] = None
    """The file to write."""

    def run(self) -> None:
        """Write it, and say what goes in and what comes out."""
        from gaba.cli.export import export

        export(self.run_dir, self.format, self.out)


@final
@dataclass(frozen=True)
class Explain:
    """Say in plain words what the balancer did in a run, what it could not do, and why."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN", help=RUN)]

    def run(self) -> None:
        """Print the diagnosis."""
        from gaba.cli.runs import explain

        print(explain(self.run_dir))


@final
@dataclass(frozen=True)
class Data:
    """Download a public data set and verify every file of it."""

    name: Positional[Literal["cmapss"]] = "cmapss"
    """Which: cmapss, the turbofan engines of NASA (12 MB)."""
    dest: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: cmapss in $GABA_DATA, else in data)"),
    ] = None
    """The folder for the files. `gaba train` finds the default by itself."""
    url: Annotated[
        str | None, arg(metavar="URL", help_behavior_hint="(default: $GABA_CMAPSS_URL, else NASA)")
    ] = None
    """The address of the archive, a zip."""

    def run(self) -> None:
        """Download, and say where the files are."""
        from gaba.cli.progress import Download
        from gaba.cli.screen import console
        from gaba.cmapss import fetch

        paths = fetch(self.folder, self.url, progressbar=Download(console()))
        print(f"{len(paths)} files, each verified by its sha256, are in {self.folder}")
        where = "" if self.dest is None else f" --data-dir {self.folder}"
        print(f"train on them: gaba train turbofan{where}")

    @property
    def folder(self) -> Path:
        """Where the files go, so that everything else finds them."""
        return self.dest or Path(os.environ.get(ENVIRONMENT) or "data", self.name)


@final
@dataclass(frozen=True)
class Domains:
    """List the other fields that use the rule, or run the example of one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Which field: portfolio, mixing, ensembles, ...; without it all are listed."""
    folder: Annotated[Path, arg(metavar="DIR")] = Path()
    """The folder for the example's picture, NAME.png."""

    def run(self) -> None:
        """List them, or run one."""
        from gaba.cli import domains

        if self.name is None:
            print(domains.listing())
        else:
            domains.run(self.name, self.folder)


@final
@dataclass(frozen=True)
class Web:
    """Open the pages in a browser: the explorer of the rules, and runs while they train."""

    path: Annotated[
        Positional[Path | None], arg(metavar="[RUN_OR_FOLDER]", help_behavior_hint="")
    ] = None
    """A run, or a folder of runs; the folder runs if it exists."""
    export: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the explorer as one HTML file that needs no server, and end."""
    host: str = "127.0.0.1"
    """Where to listen; an address that other machines reach needs a token."""
    port: int = 8765
    """The port; 0 for any free one."""
    token: Annotated[
        str | None, arg(metavar="WORD", help_behavior_hint="(default: $GABA_WEB_TOKEN, else none)")
    ] = None
    """What a browser must know, at least 16 characters; "new" makes one up."""

    def run(self) -> None:
        """Serve until Ctrl-C, or write the file."""
        if self.export is not None:
            from gaba.web.export import export

            export(self.export)
            print(f"the explorer is in {self.export}: open it in a browser")
        else:
            from gaba.cli.web import serve

            serve(self.path, self.host, self.port, self.token or os.environ.get(TOKEN) or None)


@final
@dataclass(frozen=True)
class Report:
    """Write a page about runs to send: figures, diagnosis and configuration."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...", help_behavior_hint="")]
    """Run folders, or JSONL files of a gaba.RunRecord."""
    out: Annotated[Path, arg(metavar="FILE", aliases=["-o"])]
    """The file to write."""
    format: Literal["html", "md"] = "html"
    """html is one file with everything in it; md has its pictures in a folder beside it."""

    def run(self) -> None:
        """Write it, and say where."""
        from gaba.cli.runs import report

        print(report(self.runs, self.out, self.format))


@final
@dataclass(frozen=True)
class Watch:
    """Follow a run in a terminal while it trains: figures, weights, imbalance and diagnosis."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN", help=RUN)]
    once: bool = False
    """Print it as it is now, and end."""

    def run(self) -> None:
        """Show it until Ctrl-C."""
        from rich.console import Console

        from gaba.cli.watch import watch

        watch(self.run_dir, Console(), self.once)


@final
@dataclass(frozen=True)
class Methods:
    """List the methods: what each computes, needs and costs; or everything about one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Which: gaba, uniform, gradnorm, ...; without it all are listed."""

    def run(self) -> None:
        """Print them, or one."""
        from gaba.cli.methods import show

        show(self.name)


Command: TypeAlias = (
    Demo
    | Train
    | Evaluate
    | Predict
    | Export
    | Explain
    | Data
    | Domains
    | Web
    | Report
    | Watch
    | Methods
    | Bench
    | Tune
)
COMMANDS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in get_args(Command)}


def parse(words: Sequence[str]) -> Command:
    """The command that ``words`` name.

    Raises:
        SystemExit: Wrong usage (2), or the help was asked for and printed (0).
    """
    return tyro.extras.subcommand_cli_from_dict(
        dict(COMMANDS),
        prog="gaba",
        description=(
            "Balance several losses by how hard each pulls on the parameters that they share. "
            "Begin with `gaba demo`; without any data, `gaba train turbofan --subset simulated`."
        ),
        args=words,
    )
