"""The command line: ``gaba demo``, ``train``, ``evaluate``, ``explain``, ``data`` and the others.

This file parses, calls and reports what went wrong; the commands are in ``gaba.cli``. An error is
one line on stderr and a non-zero exit status (2 for wrong usage, 130 after Ctrl-C, else 1); with
``GABA_DEBUG=1`` in the environment its traceback comes too.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaba.cli.commands import Command

__all__ = ["main"]

DEBUG = "GABA_DEBUG"
COMMANDS = (
    *("demo", "train", "evaluate", "explain", "data", "domains", "web", "report", "watch"),
    *("methods", "bench"),
)
ABSENT = 'the command line needs {name}, which is not installed: pip install "gaba[{extras}]"'
BESIDE = {
    "train": "turbofan",
    "evaluate": "turbofan",
    "data": "turbofan",
    "web": "web",
    "report": "plots",
    "bench": "bench",
    "domains": "domains",
}
"""The extra that a command needs beside the command line's own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after ``gaba``; those of the process if None.

    >>> main(["demo"])  # doctest: +ELLIPSIS
    Two tasks pull on the shared parameters with norms 5.0 and 0.01.
    ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old terminal may lack × and λ
            stream.reconfigure(errors="replace")
    try:
        if words == ["--version"]:
            print(f"gaba {metadata.version('gaba')}")
            return 0
        command = _parse(words)
        if isinstance(command, int):
            return command
        command.run()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    except BrokenPipeError:  # whoever read us has seen enough, as in `gaba explain RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(DEBUG, "") not in ("", "0"):
            traceback.print_exc()
        return _fail(_explain(error, words), 1)
    return 0


def _parse(words: list[str]) -> Command | int:
    """The command that ``words`` name, or the exit status if there is nothing to run."""
    try:
        from gaba.cli.commands import parse
    except ModuleNotFoundError as error:
        if error.name == "tyro" and words == ["demo"]:
            from gaba.cli.demo import Demo

            return Demo()
        raise
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        return _fail(_usage(said.getvalue(), words), status) if status else 0


def _fail(message: str, status: int) -> int:
    print(f"gaba: {message}", file=sys.stderr)
    return status


def _explain(error: Exception, words: list[str]) -> str:
    """``error``, which the command ``words`` met, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name.partition(".")[0]
        if name in ("tyro", "rich"):
            extras = ",".join(["cli", *(BESIDE[word] for word in words[:1] if word in BESIDE)])
            return f"error: {ABSENT.format(name=name, extras=extras)}"
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError, RuntimeError)) and text:
        return f"error: {text}"
    return f"error: {type(error).__name__}: {text} ({DEBUG}=1 shows where)"


def _usage(box: str, words: list[str]) -> str:
    """The framed text of a usage error in one line: its first part, and which help to read.

    The frame is ``╭─ Title ─╮``, or where that cannot be printed the title over a ruled line.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).strip()
    body = [line.strip("│ ") for line in plain.splitlines()[1 if plain[:1] == "╭" else 2 :]]
    ends = (i for i, line in enumerate(body) if not line.strip("─-╰╯"))
    said = " ".join(body[: next(ends, len(body))])
    text = " ".join(said.split()).replace("{None}|", "") or "wrong usage"
    help_of = f"{words[0]} " if words and words[0] in COMMANDS else ""
    return f"error: {text.rstrip('.')} (see gaba {help_of}--help)"


if __name__ == "__main__":
    sys.exit(main())
