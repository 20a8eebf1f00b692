"""Leads from a file of the repository to a page that shows it.

Links are written for the repository, `[state.py](../src/gaba/state.py)`. On the site they lead
to the page of the source: that of `sphinx.ext.viewcode`, from which there is a way back to the
reference, or else one made here. Code in a sentence that is the path of an example, a benchmark or
a source file becomes such a link too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {".py": "python", ".toml": "toml", ".txt": "text", ".cff": "yaml", "": "make"}
PATH = re.compile(r"(?:^|\s)((?:src/|examples/|benchmarks/|gaba/)[\w./-]+\.py)\b")
PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
}
"""What has a page of its own under another name."""


def repository_path(app: Sphinx, docname: str, target: str) -> Path | None:
    """The path in the repository of what a page links to, if it is a file there."""
    base = Path(app.env.doc2path(docname)).parent
    found = (base / target).resolve()
    inside = found.is_file() and found.is_relative_to(ROOT)
    return found.relative_to(ROOT) if inside else None


def page_of(app: Sphinx, path: Path) -> str | None:
    """The page that shows a file, which is noted to be made if nobody else makes it."""
    if str(path) in PAGES:
        return PAGES[str(path)]
    if path.suffix not in SHOWN or (path.suffix == "" and path.name != "Makefile"):
        return None
    if path.parts[:2] == ("src", "gaba"):
        parts = path.relative_to("src").with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if getattr(app.env, "_viewcode_modules", {}).get(".".join(parts)):
            return "/".join(("_modules", *parts))
    _noted(app).add(str(path))
    return f"_files/{path}"


def _noted(app: Sphinx) -> set[str]:
    if not hasattr(app, "gaba_files"):
        app.gaba_files = set()  # type: ignore[attr-defined]
    return app.gaba_files  # type: ignore[attr-defined]


def _link(app: Sphinx, docname: str, page: str, *content: nodes.Node) -> nodes.reference:
    uri = app.builder.get_relative_uri(docname, page)
    return nodes.reference("", "", *content, internal=True, refuri=uri)


def resolve(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """Turn downloads and paths into links to pages."""
    for node in list(tree.findall(addnodes.download_reference)):
        path = repository_path(app, docname, node["reftarget"])
        page = None if path is None else page_of(app, path)
        if page is not None:
            node.replace_self(_link(app, docname, page, *node.children))
    for node in list(tree.findall(nodes.literal)):
        match = PATH.search(node.astext())
        if match is None or isinstance(node.parent, (nodes.reference, nodes.title)):
            continue
        relative = f"src/{match[1]}" if match[1].startswith("gaba/") else match[1]
        if (ROOT / relative).is_file():
            page = page_of(app, Path(relative))
            if page is not None and page != docname:
                node.replace_self(_link(app, docname, page, node.deepcopy()))


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of the files that were linked to."""
    for name in sorted(_noted(app)):
        path = Path(name)
        code = (ROOT / path).read_text(encoding="utf-8")
        language = SHOWN[path.suffix]
        body = app.builder.highlighter.highlight_block(code, language)  # type: ignore[attr-defined]
        title = posixpath.join(*path.parts)
        context = {"title": title, "body": f"<h1>{title}</h1>{body}", "parents": []}
        yield f"_files/{name}", context, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-resolved", resolve, priority=400)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
