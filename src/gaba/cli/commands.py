"""What can be typed after ``gaba``; each command is a dataclass of its options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, final

import tyro
from tyro.conf import Positional, arg, subcommand

from gaba.cli.bench import Bench
from gaba.cli.demo import Demo

RECIPE = "(default: the recipe's)"
Subset: TypeAlias = Literal["FD001", "FD002", "FD003", "FD004", "simulated"]


@final
@dataclass(frozen=True)
class Train:
    """Train a model with balanced losses, evaluate it, and show what the balancer did."""

    application: Positional[Literal["turbofan"]]
    """What to train: turbofan, the remaining life and health of engines (NASA C-MAPSS)."""
    subset: Subset = "FD001"
    """The data; "simulated" is a made-up fleet that needs no files."""
    method: Annotated[str, arg(metavar="NAME")] = "gaba"
    """How the losses are balanced: gaba (as published), inverse (this library's defaults),
    inverse-sketch (the same, cheaper), uniform, fixed:W,W (weights of rul and health), amnl, grace,
    or another of `gaba methods`."""
    weights_from: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Take fixed weights instead: those that the run in this folder came to."""
    size: Literal["small", "paper"] = "small"
    """The model: small has about .3 million parameters, paper about 3.5 million."""
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
    """The folder of the run: settings, history, metrics, checkpoint and pictures."""
    resume: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Go on with the run in this folder, with its own settings, from its last checkpoint."""
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

        train(self)


@final
@dataclass(frozen=True)
class Evaluate:
    """Judge a run's best model on the test engines again, and draw its pictures anew."""

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
class Explain:
    """Say in plain words what the balancer did in a run, what it could not do, and why."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """The folder of a run, or the JSONL file of a gaba.RunRecord."""

    def run(self) -> None:
        """Print the diagnosis."""
        from gaba.cli.explain import explain

        print(explain(self.run_dir))


@final
@dataclass(frozen=True)
class Data:
    """Download a public data set and verify every file of it."""

    name: Positional[Literal["cmapss"]]
    """Which: cmapss, the turbofan engines of NASA (12 MB)."""
    dest: Annotated[Path, arg(metavar="DIR")]
    """The folder to put the files in."""
    url: Annotated[
        str | None, arg(metavar="URL", help_behavior_hint="(default: $GABA_CMAPSS_URL, else NASA)")
    ] = None
    """The address of the archive, a zip."""

    def run(self) -> None:
        """Download, and say where the files are."""
        from gaba.turbofan.download import fetch

        paths = fetch(self.dest, self.url)
        print(f"{len(paths)} files, each verified by its sha256, are in {self.dest}")
        print(f"train on them: gaba train turbofan --data-dir {self.dest}")


@final
@dataclass(frozen=True)
class Domains:
    """List the other fields that the rule is applied to, or run the example of one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Which field: portfolio, mixing, ensembles and so on; without it all are listed."""
    folder: Annotated[Path, arg(metavar="DIR")] = Path()
    """Where the example's picture goes, as NAME.png."""

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
    """Open the pages: the explorer of the rules, and runs while they train, in a browser."""

    path: Annotated[
        Positional[Path | None], arg(metavar="[RUN_OR_FOLDER]", help_behavior_hint="")
    ] = None
    """A run, or a folder of runs; the folder runs where that exists."""
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
        from gaba.cli.web import web

        web(self, dict(os.environ))


@final
@dataclass(frozen=True)
class Report:
    """Write what runs did as a page to send: figures, diagnosis and configuration."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...", help_behavior_hint="")]
    """Run folders, or JSONL files of a gaba.RunRecord."""
    out: Annotated[Path, arg(metavar="FILE", aliases=["-o"])]
    """The file to write."""
    format: Literal["html", "md"] = "html"
    """html is one file with everything in it; md has its pictures in a folder beside it."""

    def run(self) -> None:
        """Write it, and say where."""
        from gaba.cli.write_report import write

        print(write(self.runs, self.out, self.format))


@final
@dataclass(frozen=True)
class Watch:
    """Follow a run while it trains in a terminal: figures, weights, imbalance and diagnosis."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN")]
    """The folder of a run, or the JSONL file of a gaba.RunRecord."""
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
    """List the methods: what each computes, needs and costs; or say everything about one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Which: gaba, uniform, gradnorm and so on; without it all are listed."""

    def run(self) -> None:
        """Print them, or one."""
        from gaba.cli.methods import show

        show(self.name)


Command: TypeAlias = (
    Demo | Train | Evaluate | Explain | Data | Domains | Web | Report | Watch | Methods | Bench
)


def parse(words: Sequence[str]) -> Command:
    """The command that ``words`` name.

    Raises:
        SystemExit: wrong usage (2), or the help was asked for and printed (0).
    """
    return tyro.cli(
        Annotated[Demo, subcommand("demo")]
        | Annotated[Train, subcommand("train")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Explain, subcommand("explain")]
        | Annotated[Data, subcommand("data")]
        | Annotated[Domains, subcommand("domains")]
        | Annotated[Web, subcommand("web")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Watch, subcommand("watch")]
        | Annotated[Methods, subcommand("methods")]
        | Annotated[Bench, subcommand("bench")],
        prog="gaba",
        description=(
            "Balance several losses by the pull of each on the parameters that they share. "
            "Begin with `gaba demo`; without any data, `gaba train turbofan --subset simulated`."
        ),
        args=words,
    )
