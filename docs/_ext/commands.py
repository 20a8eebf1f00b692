"""Writes the page of the command line from what `gaba COMMAND --help` prints, before each build."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import reference

TITLE = "The command line"
WIDE = "400"
"""Columns that no line of the help fills, so that only a name can break one."""


@dataclass(frozen=True)
class Help:
    """What a command says of itself.

    Attributes:
        usage: how it is called.
        purpose: its sentence.
        entries: the arguments and options, each with its meaning; not that of the help itself.
        below: the names of its subcommands.
    """

    usage: str
    purpose: str
    entries: tuple[tuple[str, str], ...]
    below: tuple[str, ...]


def help_of(words: Sequence[str]) -> Help:
    """Of ``gaba WORDS``."""
    from gaba.cli import main

    said = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS=WIDE), contextlib.redirect_stdout(said):
        status = main([*words, "--help"])
    if status != 0:
        raise RuntimeError(f"gaba {' '.join(words)} --help ended with status {status}")
    text = "\n".join(line.rstrip() for line in said.getvalue().splitlines())
    head, *parts = re.split(r"\n (?=\w[\w ]*\n -+\n)", text)
    usage, _, purpose = head.partition("\n\n")
    listed = {part.partition("\n")[0].strip(): part.split("\n", 2)[2] for part in parts}
    below = re.findall(r"• (\w+)", listed.pop("subcommands", ""))
    entries = [entry for part in listed.values() for entry in _entries(part)]
    return Help(
        usage.removeprefix("usage: ").strip(), " ".join(purpose.split()), tuple(entries), (*below,)
    )


def _entries(part: str) -> Iterator[tuple[str, str]]:
    for entry in re.split(r"\n(?=  \S)", part.rstrip()):
        name, _, meaning = re.sub(r"\s*\n\s+", "  ", entry.strip()).partition("  ")
        if not name.startswith("-h,"):
            yield name.strip(), " ".join(meaning.split())


def sections(words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Help]]:
    """Every command with its help, depth first, those of a command after it."""
    found = help_of(words)
    if words:
        yield words, found
    for name in found.below:
        yield from sections((*words, name))


def page() -> Iterator[str]:
    """The page, line by line."""
    yield from (TITLE, "=" * len(TITLE), "")
    yield 'What ``gaba COMMAND --help`` prints. It needs ``pip install "gaba[cli]"``; a command'
    yield "that needs more says so in one line. Errors are one line, with status 2 for wrong usage,"
    yield "130 after Ctrl-C, and 1 for all else; ``GABA_DEBUG=1`` shows where one came from."
    for words, found in sections():
        title = f"gaba {' '.join(words)}"
        yield from ("", title, ("-" if len(words) == 1 else "~") * len(title), "")
        yield from (
            _escaped(found.purpose),
            "",
            ".. code-block:: none",
            "",
            f"   {found.usage}",
            "",
        )
        for name, meaning in found.entries:
            yield from (f"``{name}``", f"   {_escaped(meaning)}", "")


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{p}`" if p[:1] == "`" else re.sub(r"([*|\\])", r"\\\1", p) for p in parts)


setup = reference.adds("command-line.rst", page)
