"""The command line: ``gaba demo``, ``train``, ``evaluate``, ``explain``, ``data`` and the others.

This file parses, calls and reports errors; the commands are in ``gaba.cli.commands``. An error is
one line on stderr and a non-zero exit status (2 for wrong usage, 130 after Ctrl-C, else 1). With
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

from gaba import __version__
from gaba.extras import install
from gaba.spelling import nearest

__all__ = ["main"]

DEBUG = "GABA_DEBUG"
BESIDE = {
    **dict.fromkeys(("train", "evaluate", "predict", "export", "data"), "turbofan"),
    "web": "web",
    "report": "plots",
    "bench": "bench",
    "tune": "tune",
    "domains": "domains",
}
"""The extra that a command needs in addition to ``cli``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The words after ``gaba``; by default those of the process.

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
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    except BrokenPipeError:  # the reader has seen enough, as in `gaba explain RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(DEBUG, "") not in ("", "0"):
            traceback.print_exc()
        return _fail(f"error: {_explain(error, words)}", 1)
    return status


def _run(words: list[str]) -> int:
    if words in (["--version"], ["version"]):
        print(f"gaba {__version__}")
        return 0
    if words == ["demo"]:  # the one command that needs no extra
        from gaba import demo

        print(demo.text())
        return 0
    from gaba.cli.commands import parse

    words = words or ["--help"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command = parse(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        return _fail(f"error: {_usage(said.getvalue(), words)}", status) if status else 0
    command.run()
    return 0


def _fail(message: str, status: int) -> int:
    print(f"gaba: {message}", file=sys.stderr)
    return status


def _explain(error: Exception, words: list[str]) -> str:
    """``error``, from the command ``words``, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("tyro", "rich"):
        extras = ["cli", *(BESIDE[word] for word in words[:1] if word in BESIDE)]
        return f"the command line needs {error.name}, which is not installed: {install(*extras)}"
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, OSError, ImportError, RuntimeError)) and text:
        return text
    return f"{type(error).__name__}: {text} ({DEBUG}=1 shows where)"


def _usage(box: str, words: list[str]) -> str:
    """The framed text of a usage error in one line: its first part, and which help to read.

    The frame is ``╭─ Title ─╮``, or if that cannot be printed the title over a ruled line.
    """
    from gaba.cli.commands import COMMANDS

    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).strip()
    body = [line.strip("│ ") for line in plain.splitlines()[1 if plain[:1] == "╭" else 2 :]]
    ends = (i for i, line in enumerate(body) if not line.strip("─-╰╯"))
    said = " ".join(body[: next(ends, len(body))])
    text = " ".join(said.split()).replace("{None}|", "") or "wrong usage"
    if meant := _meant(words):
        return f"{text.rstrip('.')}: {meant}"
    help_of = f"{words[0]} " if words and words[0] in COMMANDS else ""
    return f"{text.rstrip('.')} (see gaba {help_of}--help)"


_ELSEWHERE = {
    "run": "gaba train turbofan, or gaba bench run CONFIG",
    "list": "gaba methods, gaba domains and gaba bench problems list what there is",
    "observe": "gaba.Observer is for your own loop; gaba explain RUN says what a run did",
    "plot": "gaba report RUN... -o FILE draws what the balancer did",
    "download": "gaba data cmapss",
}
"""What people type for other commands."""


def _meant(words: list[str]) -> str:
    """What to type instead, where a command is unknown or has a word too many; or nothing."""
    from gaba.cli.commands import COMMANDS

    if not words or words[0].startswith("-"):
        return ""
    first = words[0]
    if first == "domains" and words[1:2] in (["run"], ["show"]) and len(words) > 2:
        return f"did you mean gaba domains {words[2]}?"
    if first in COMMANDS:
        return ""
    if first in _ELSEWHERE:
        return _ELSEWHERE[first]
    near = nearest(first, COMMANDS)
    return f"did you mean gaba {near}?" if near else ""
