"""The page as Markdown, with its pictures in a folder beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gaba.bench.report._document import Bullets, Drawing, Heading, Table, Text

if TYPE_CHECKING:
    from gaba.bench.report._document import Page, Part

__all__ = ["render"]


def render(page: Page, folder: Path) -> str:
    """The Markdown of ``page``, whose pictures it writes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {plain(page.title)}", *(_part(part, folder) for part in page.parts)]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """``text`` in Markdown: its marks stand for themselves."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))


def _part(part: Part, folder: Path) -> str:
    if isinstance(part, Heading):
        return f"{'#' * part.level} {plain(part.text)}"
    if isinstance(part, Text):
        return plain(part.text)
    if isinstance(part, Bullets):
        return "\n".join(f"- {plain(item)}" for item in part.items)
    return _table(part) if isinstance(part, Table) else _drawing(part, folder)


def _drawing(drawing: Drawing, folder: Path) -> str:
    file = folder / f"{drawing.name}.png"
    drawing.draw().savefig(file, dpi=110, metadata={"Software": None})
    return f"![{plain(drawing.caption)}]({folder.name}/{file.name})"


def _table(table: Table) -> str:
    marks = ["---" if i < table.words else "---:" for i in range(len(table.head))]
    rows = [[plain(name) for name in table.head], marks]
    rows += [[plain(cell) for cell in row] for row in table.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
