"""The code blocks of a page of the documentation, and how they are executed.

A page is a small story: its blocks are executed from top to bottom in one folder of its own, the
Python blocks in one namespace. A Python block whose first line is ``# NAME.py`` is written to that
file instead, for a command to use. A block of ``text`` is what the block before it prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from _python import run

BLOCK = re.compile(r"^```(\{?\w*\}?)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w.-]+\.(?:py|toml|csv))$")
PROGRAMS = {"python": [], "torchrun": ["-m", "torch.distributed.run"]}
GABA = ["-c", "import sys; from gaba.cli import main; sys.exit(main())"]
"""The command as a program of its own."""


@dataclass(frozen=True)
class Block:
    """A block of code: of which kind, what it says, and in which line of the page it begins."""

    kind: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it is written to instead of being executed."""
        match = FILE.match(self.text.partition("\n")[0])
        return None if match is None else match[1]


def blocks(path: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    found = BLOCK.finditer(text)
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in found]


def commands(block: Block) -> Iterator[str]:
    """The commands of a block of them, without the path of the virtual environment."""
    lines = block.text.replace("\\\n", " ").splitlines()
    yield from (line.removeprefix(".venv/bin/") for line in lines if line)


def words(text: str) -> list[str]:
    """Everything but the layout."""
    return re.sub(r"-{3,}", "", text).split()


def tell(path: Path, folder: Path, special: Mapping[str, Callable[[Path], None]]) -> None:
    """Execute a page in ``folder``; ``special`` says what to do instead of some commands."""
    module = ModuleType(f"page_{path.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module
    printed = ""
    try:
        for block in blocks(path):
            where = f"{path.name}, line {block.line}"
            if block.file is not None:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.kind == "python":
                printed = _execute(block, path, module, folder)
            elif block.kind == "sh":
                printed = "".join(_run(line, folder, special, where) for line in commands(block))
            elif block.kind == "text":
                assert words(printed) == words(block.text), f"{where}: prints\n{printed}"
    finally:
        del sys.modules[module.__name__]


def _execute(block: Block, path: Path, module: ModuleType, folder: Path) -> str:
    """Execute Python as if the block stood where it does in the page; what it printed."""
    code = compile("\n" * block.line + block.text, str(path), "exec", dont_inherit=True)
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
    ):
        patch.chdir(folder)
        warnings.simplefilter("ignore")  # other packages' own
        warnings.filterwarnings("error", module=r"gaba|page_")
        exec(code, vars(module))
    return said.getvalue()


def _run(
    command: str, folder: Path, special: Mapping[str, Callable[[Path], None]], where: str
) -> str:
    if command in special:
        special[command](folder)
        return ""
    program, *rest = shlex.split(command)
    if program == "gaba":
        return _gaba(rest, folder, where)
    done = run([*PROGRAMS[program], *rest], cwd=folder, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, f"{where}: {done.stdout}{done.stderr}"
    return done.stdout


def _gaba(arguments: list[str], folder: Path, where: str) -> str:
    """Execute our command here, which saves the start of a program."""
    from gaba.cli import main

    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
    ):
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["gaba", *arguments])
        patch.setenv("COLUMNS", "120")
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    assert not code, f"{where}: {said.getvalue()}"
    return said.getvalue()
