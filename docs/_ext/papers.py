"""Writes the index by paper: which names take something from which work.

The works are in `papers.toml`. A description that says `Source:` and names none of them is listed
too, as it stands; a test asks for its entry.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reference
from sphinx.application import Sphinx

SOURCE = re.compile(r"Source: (.*?)(?:\n\s*\n|\Z)", re.DOTALL)
YEAR = re.compile(r"\b(?:19|20)\d\d\b")
NONE = re.compile(r"^none\b")
TITLE = "Index by paper"


@dataclass(frozen=True)
class Paper:
    """A work, and how descriptions name it."""

    text: str
    match: re.Pattern[str]


@dataclass(frozen=True)
class Use:
    """A name whose description names works.

    Attributes:
        role: the reference to it, as reStructuredText.
        text: its description, in one line.
        source: what it says after ``Source:``; empty if it does not.
    """

    role: str
    text: str
    source: str


def papers(folder: Path) -> list[Paper]:
    """The works in the file."""
    found = tomllib.loads((folder / "papers.toml").read_text(encoding="utf-8"))["paper"]
    return [Paper(one["text"], re.compile("|".join(one["match"]))) for one in found]


def uses() -> Iterator[Use]:
    """What the public names say, and the methods of the table."""
    for name in reference.names():
        if name.module == name.home and name.kind:
            yield _use(f":py:obj:`{name.full}`", inspect.getdoc(name.thing) or "")
    for module in reference.modules():
        if reference.page_needed(module):
            yield _use(f":doc:`{module.__name__}`", module.__doc__ or "")
    methods = sys.modules.get("gaba.methods")
    for method in getattr(methods, "METHODS", {}).values():
        text = f"Source: {method.name}: {method.source}"
        yield _use(f":doc:`{method.name} <methods>`", text)


def _use(role: str, text: str) -> Use:
    source = SOURCE.search(text)
    return Use(role, " ".join(text.split()), " ".join(source[1].split()) if source else "")


def unlisted(folder: Path) -> list[Use]:
    """Descriptions whose source, a work of some year, is in no entry of the file."""
    known = papers(folder)
    return [
        use
        for use in uses()
        if YEAR.search(use.source)
        and not NONE.match(use.source)
        and not any(paper.match.search(use.source) for paper in known)
    ]


def index(folder: Path) -> str:
    """The page."""
    found = list(uses())
    lines = [TITLE, "=" * len(TITLE), "", "What is taken from where, with the names that do.", ""]
    for paper in papers(folder):
        roles = list(dict.fromkeys(use.role for use in found if paper.match.search(use.text)))
        if roles:
            lines += [paper.text, *(f"   {role}" for role in _joined(roles)), ""]
    others = unlisted(folder)
    if others:
        lines += ["Other sources", "   as they are named where they are used.", ""]
    for use in others:
        lines += [use.source.replace("*", "\\*").replace("`", ""), f"   {use.role}", ""]
    return "\n".join(lines)


def _joined(roles: list[str]) -> list[str]:
    return [f"{role}," for role in roles[:-1]] + roles[-1:]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""

    def inited(app: Sphinx) -> None:
        folder = Path(app.srcdir)
        path, text = folder / reference.FOLDER / "papers.rst", index(folder)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")

    app.connect("builder-inited", inited, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
