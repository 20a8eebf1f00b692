"""A page of headings, sentences, tables and pictures, as one HTML file or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, final

from gaba.extras import library

__all__ = ["Bullets", "Code", "Drawing", "Heading", "Page", "Part", "Table", "Text", "plain"]

TEMPLATES = Path(__file__).parent / "templates"


@final
@dataclass(frozen=True)
class Heading:
    """``level`` 2 begins a section, 3 a part of one."""

    text: str
    level: int = 2


@final
@dataclass(frozen=True)
class Text:
    """One paragraph; ``quiet`` for what explains a table."""

    text: str
    quiet: bool = False


@final
@dataclass(frozen=True)
class Code:
    """A line of code."""

    text: str


@final
@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@final
@dataclass(frozen=True)
class Table:
    """The first ``words`` columns are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@final
@dataclass(frozen=True)
class Drawing:
    """A picture by its name (that of its file), with what it shows in words.

    Attributes:
        name: unique on its page.
        caption: what it shows.
        markup: gives it as HTML that needs no other file, an ``<img>``, ``<picture>`` or ``<svg>``.
        png: gives it as the bytes of a PNG file, for Markdown.
    """

    name: str
    caption: str
    markup: Callable[[], str] = field(compare=False)
    png: Callable[[], bytes] = field(compare=False)


Part: TypeAlias = Heading | Text | Code | Bullets | Table | Drawing


@final
@dataclass(frozen=True)
class Page:
    """A title and all that follows.

    Attributes:
        title: of the page.
        parts: in their order.
        contents: whether a list of the sections comes first.
        colours: name → on light paper, on dark paper; ``var(--name)`` in HTML.

    Example:
        >>> table = Table(("task", "norm"), (("rul", "5.0"), ("health", "0.01")))
        >>> drawn = Drawing("dot", "A dot", lambda: "<svg></svg>", lambda: b"")
        >>> page = Page("A run", (Heading("Tasks"), Text("Two."), table, Bullets(("Done.",))))
        >>> print(page.markdown(Path("pictures")))
        # A run
        <BLANKLINE>
        ## Tasks
        <BLANKLINE>
        Two.
        <BLANKLINE>
        | task | norm |
        | --- | ---: |
        | rul | 5.0 |
        | health | 0.01 |
        <BLANKLINE>
        - Done.
        <BLANKLINE>
        >>> "<svg></svg>" in Page("A dot", (drawn, Code("gaba.Balancer"))).html()
        True
    """

    title: str
    parts: tuple[Part, ...]
    contents: bool = False
    colours: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def sections(self) -> list[list[Part]]:
        """What stands before the first heading of level 2, then each of these with its parts."""
        found: list[list[Part]] = [[]]
        for part in self.parts:
            if isinstance(part, Heading) and part.level == 2:
                found.append([])
            found[-1].append(part)
        return found

    def html(self) -> str:
        """One file that needs no other, no script and no network."""
        return self._rendered("page.html", lambda drawing: drawing.markup())

    def markdown(self, pictures: Path) -> str:
        """The page as Markdown; its pictures are written into the folder ``pictures``."""

        def beside(drawing: Drawing) -> str:
            pictures.mkdir(parents=True, exist_ok=True)
            file = pictures / f"{drawing.name}.png"
            file.write_bytes(drawing.png())
            return f"{pictures.name}/{file.name}"

        return self._rendered("page.md", beside)

    def _rendered(self, template: str, picture: Callable[[Drawing], str]) -> str:
        jinja2 = library("jinja2", "reports need", "plots")
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=template.endswith(".html"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["plain"] = plain
        for kind in (Heading, Text, Code, Bullets, Drawing, Table):
            environment.tests[kind.__name__.lower()] = _is(kind)
        return environment.get_template(template).render(page=self, picture=picture)


def plain(text: str) -> str:
    r"""``text`` in Markdown: its marks stand for themselves.

    Example:
        >>> print(plain("a_b | <c>"))
        a\_b \| \<c\>
    """
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))


def _is(kind: type) -> Any:
    return lambda part: isinstance(part, kind)
