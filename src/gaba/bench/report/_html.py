"""The page as one HTML file, which needs no other file, no script and no network."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from gaba.bench.report._document import Bullets, Drawing, Heading, Table, Text
from gaba.bench.report._paper import COLOURS, svg

if TYPE_CHECKING:
    from gaba.bench.report._document import Page, Part

__all__ = ["render"]

VARIABLES = " ".join(
    f"--{name}: light-dark({light}, {dark});" for name, (light, dark) in COLOURS.items()
)
STYLE = f"""
:root {{ color-scheme: light dark; --bg: light-dark(#f7f6f2, #12151a);
  --line: light-dark(#dbd8ce, #303743); {VARIABLES} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1080px; padding: 24px 16px 64px; background: var(--bg);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }}
h1, h2, h3 {{ line-height: 1.25; margin: 1.4em 0 0.5em; }}
h1 {{ margin-top: 0; }}
section {{ background: var(--surface); border: 1px solid var(--line); border-radius: 12px;
  padding: 4px clamp(14px, 3vw, 28px) 20px; margin-top: 24px; }}
nav ul {{ columns: 18rem; padding-left: 1.2em; }}
a {{ color: var(--own); }}
.quiet {{ color: var(--quiet); }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: separate; border-spacing: 0; font-size: 0.86rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 14px 6px 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }}
thead th {{ color: var(--quiet); font-weight: 600; white-space: normal; min-width: 5.5rem;
  vertical-align: bottom; }}
th[scope=row] {{ font-weight: 500; background: var(--surface); white-space: normal;
  min-width: 7.5rem; max-width: 16rem; overflow-wrap: anywhere; }}
@media (min-width: 600px) {{ th[scope=row] {{ position: sticky; left: 0; z-index: 1;
  white-space: nowrap; max-width: none; }} }}
td.number, th.number {{ text-align: right; }}
figure {{ margin: 22px 0; }}
figcaption {{ font-weight: 600; margin-bottom: 6px; }}
figure svg {{ display: block; width: 100%; min-width: 600px; height: auto; }}
li {{ margin: 0.45em 0; }}
@media print {{ body {{ background: #fff; }} section {{ border: 0; padding: 0; }}
  .scroll {{ overflow: visible; }} }}
"""


def render(page: Page) -> str:
    """The HTML of ``page``."""
    sections: list[str] = []
    contents: list[str] = []
    inside: list[str] = []
    for part in page.parts:
        if isinstance(part, Heading) and part.level == 2:
            sections.append("".join(inside))
            at = f"part-{len(contents) + 1}"
            contents.append(f'<li><a href="#{at}">{html.escape(part.text)}</a></li>')
            inside = [f'<h2 id="{at}">{html.escape(part.text)}</h2>']
        else:
            inside.append(_part(part))
    sections.append("".join(inside))
    first, *rest = sections
    title = html.escape(page.title)
    body = "\n".join(f"<section>{section}</section>" for section in rest)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f'{first}\n<nav aria-label="Contents"><ul>{"".join(contents)}</ul></nav>\n{body}\n'
        "</body>\n</html>\n"
    )


def _part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{html.escape(part.text)}</h{part.level}>"
    if isinstance(part, Text):
        kind = ' class="quiet"' if part.quiet else ""
        return f"<p{kind}>{html.escape(part.text)}</p>"
    if isinstance(part, Bullets):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in part.items) + "</ul>"
    return _table(part) if isinstance(part, Table) else _drawing(part)


def _drawing(drawing: Drawing) -> str:
    caption = html.escape(drawing.caption, quote=True)
    drawn = svg(drawing.draw(), drawing.name)
    drawn = drawn.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="scroll" tabindex="0">{drawn}</div>'
        "</figure>"
    )


def _table(table: Table) -> str:
    kinds = ["" if i < table.words else ' class="number"' for i in range(len(table.head))]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(name)}</th>'
        for name, kind in zip(table.head, kinds, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(
            f"<td{kind}>{html.escape(cell)}</td>"
            for cell, kind in zip(row[1:], kinds[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
