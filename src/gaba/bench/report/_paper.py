"""The paper of the report's pictures: one set of colours, which a page can exchange for its own."""

from __future__ import annotations

import html
import io
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from gaba.record.plots import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = MappingProxyType(
    {
        "surface": ("#ffffff", "#1a1e25"),
        "ink": ("#1c1f26", "#eceef2"),
        "quiet": ("#565b66", "#a9b1be"),
        "grid": ("#e7e4db", "#2c333e"),
        "faint": ("#b4b2aa", "#5d6675"),
        "own": ("#0b6fb8", "#5db2f5"),
        "published": ("#d1570a", "#ff9a4d"),
        "relative": ("#0d8a6a", "#3fd0a5"),
        "peer": ("#6b5bd2", "#a99cff"),
        "control": ("#7a4a2b", "#d0a080"),
        "other": ("#4a5a70", "#a8b8cc"),
    }
)
"""Name → on light paper, on dark paper."""

GROUPS = ("own", "control", "published", "relative", "peer", "other")


def paper(columns: int, height: float) -> tuple[Picture, list[Axes]]:
    """An empty picture of axes side by side, 8 inches wide."""
    picture = Picture(figsize=(8, height), layout="constrained", facecolor=COLOURS["surface"][0])
    axes = list(picture.subplots(1, columns, squeeze=False)[0])
    for one in axes:
        dress(one)
    return picture, axes


def dress(axes: Axes) -> None:
    light = {name: colours[0] for name, colours in COLOURS.items()}
    axes.set_facecolor(light["surface"])
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=light["quiet"], labelsize=8, which="both", length=0)
    axes.xaxis.label.set_color(light["ink"])
    axes.yaxis.label.set_color(light["ink"])
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(color=light["grid"], linewidth=0.8)
    axes.set_axisbelow(True)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.savefig(file, dpi=110, metadata={"Software": None})
    return file.getvalue()


def svg(picture: Picture, name: str, caption: str) -> str:
    """The picture as an ``<svg>`` for a page: its colours are the page's ``--NAME`` variables.

    All ids begin with ``name``, so that several pictures fit on one page.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        picture.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{colour})")
    text = re.sub(r'<g id="[^"]*"/>', "", re.sub(r'<g id="[^"]*">', "<g>", text))
    text = re.sub(r"\n\s*", "\n", text)
    text = re.sub(r"<[^>]*>", lambda tag: _short(tag[0]), text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(caption)}"', 1)


def _short(tag: str) -> str:
    """The tag with coordinates to a tenth of a point, and without what changes nothing."""
    tag = re.sub(r"(\d+\.\d)\d+", r"\1", tag)
    useless = r"; stroke-linejoin: miter|; stroke-linecap: square| font-family: [^;\"]*;"
    return re.sub(rf"{useless}| transform=\"rotate\(-0 [^\"]*\"", "", tag)
