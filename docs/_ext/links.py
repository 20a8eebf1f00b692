"""Checks the built pages: every link inside leads somewhere, and nothing is loaded from elsewhere.

What is wrong is a warning, and warnings are errors in `make docs`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}
ELSEWHERE = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"]?(?:https?:)?//")


@dataclass
class Page(HTMLParser):
    """The anchors of a page, what it links to and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag is or leads to."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index"):
            self.loads.append(given.get("href", ""))
        if tag in LOADS and LOADS[tag] in given:
            self.loads.append(given[LOADS[tag]])


def read(folder: Path) -> dict[str, Page]:
    """Every page of a site, by its path."""
    found = {}
    for path in sorted(folder.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        found[path.relative_to(folder).as_posix()] = page
    return found


def troubles(folder: Path) -> Iterator[str]:
    """What is wrong with a site, in words."""
    site = read(folder)
    for name, page in site.items():
        for target in page.loads:
            if urlsplit(target).netloc:
                yield f"{name}: loads {target} from another host"
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if (folder / to).is_dir():
                to = posixpath.join(to, "index.html")
            if not (folder / to).is_file():
                yield f"{name}: {target} leads nowhere"
            elif parts.fragment and to in site and unquote(parts.fragment) not in site[to].anchors:
                yield f"{name}: {target} has no such place"
    for path in sorted(folder.rglob("*.css")):
        if ELSEWHERE.search(path.read_text(encoding="utf-8")):
            yield f"{path.name}: loads from another host"


def mend_ways_back(folder: Path) -> None:
    """Let the pages of `sphinx.ext.viewcode` point back to where a name really is described.

    It takes all names of a file to be described in one module.
    """
    site = read(folder)
    for path in sorted(folder.glob("_modules/**/*.html")):
        here = path.relative_to(folder).as_posix()

        def mended(match: re.Match[str], here: str = here) -> str:
            page, anchor = match[1], match[2]
            to = posixpath.normpath(posixpath.join(posixpath.dirname(here), page))
            parts = anchor.split(".")
            for i in range(1, len(parts)):
                tail = "." + ".".join(parts[i:])
                there = [a for a in site[to].anchors if a.endswith(tail)] if to in site else []
                if anchor not in there and len(there) == 1:
                    return f'class="viewcode-back" href="{page}#{there[0]}"'
                if there:
                    break
            return match[0]

        text = path.read_text(encoding="utf-8")
        new = re.sub(r'class="viewcode-back" href="([^"#]*)#([^"]*)"', mended, text)
        if new != text:
            path.write_text(new, encoding="utf-8")


def check(app: Sphinx, error: Exception | None) -> None:
    """Report the troubles of the site that was built."""
    if error or app.builder.format != "html":
        return
    mend_ways_back(Path(app.outdir))
    found = list(dict.fromkeys(troubles(Path(app.outdir))))
    for trouble in found:
        log.warning("%s", trouble)
    if found:
        app.statuscode = 1


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", check, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
