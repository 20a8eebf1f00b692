"""What must hold wherever one looks: it fits, it can be read, every control has a name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gaba.web import export as exporting
from gaba.web.export import export, standalone

Open = Callable[..., Page]
LOOKS = [
    *[(375, "light"), (375, "dark"), (1440, "light"), (1440, "dark")],
    *[(320, ""), (768, ""), (1024, "")],
]
CONTROLS = {"button", "slider", "radio", "textbox", "spinbutton", "combobox", "link", "checkbox"}
CONTROLS |= {"DisclosureTriangle"}

CONTRASTS = """() => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
        .getContext("2d", { willReadFrequently: true });
    const known = new Map();
    const rgba = (css) => {
        if (!known.has(css)) known.set(css, read(css));
        return known.get(css);
    };
    const read = (css) => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = css;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
    const luminance = (rgb) => {
        const [r, g, b] = rgb.map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            const layer = rgba(getComputedStyle(e).backgroundColor);
            layers.push(layer);
            if (layer[3] === 1) break;
        }
        return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim();
        const element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility()) continue;
        if (element.closest("script, style, noscript")) continue;
        const style = getComputedStyle(element);
        const behind = ground(element);
        const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [luminance(over(ink, behind)), luminance(behind)];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text]);
    }
    for (const field of document.querySelectorAll("input[type=text], input[type=number], select")) {
        if (!field.checkVisibility()) continue;
        const style = getComputedStyle(field);
        const [a, b] = [rgba(style.color), rgba(style.backgroundColor)].map((c) => luminance(c));
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), field.id]);
    }
    return found;
}"""


BEYOND = """() => [...document.querySelectorAll("main *")].filter((one) => {
    const box = one.getBoundingClientRect();
    if (one.closest(".table-scroll, pre, .visually-hidden, .u-wrap")) return false;
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((one) => one.outerHTML.slice(0, 120))"""


def ready(page: Page) -> Page:
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
    return page


def test_it_fits_and_can_be_read(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    page.locator("#many-count").fill("12")
    page.get_by_role("button", name="Equal norms").first.click()
    page.locator("details summary").first.click()
    for width, theme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert page.evaluate(BEYOND) == [], width
        if theme:
            contrasts: list[tuple[float, str]] = page.evaluate(CONTRASTS)
            assert len(contrasts) > 200
            assert [one for one in contrasts if one[0] < 4.5] == [], (width, theme)


def test_every_control_has_a_role_and_a_name(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    page.locator("#many-count").fill("12")
    ready(page)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]

    def of(node: dict[str, Any], key: str) -> str:
        return str(node.get(key, {}).get("value", ""))

    shown = [node for node in tree if not node.get("ignored")]
    controls = [node for node in shown if of(node, "role") in CONTROLS]
    assert len(controls) > 120
    assert [node for node in controls if not of(node, "name").strip()] == []
    images = [node for node in shown if of(node, "role") in ("image", "img", "figure")]
    assert len(images) > 15
    assert [node for node in images if not of(node, "name").strip()] == []
    for role in ("banner", "main", "navigation", "contentinfo"):
        assert sum(of(node, "role") == role for node in shown) == 1, role
    names = [of(node, "name") for node in controls if of(node, "role") == "slider"]
    assert len(names) == 27


def test_the_page_is_well_formed(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    ids: list[str] = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels: list[int] = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    links: list[str] = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map((e) => e.hash.slice(1))"
    )
    assert set(links) <= set(ids)
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_exported_file_works_from_a_disk(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "explorer.html"
    export(file)
    assert [path.name for path in file.parent.iterdir()] == ["explorer.html"]
    requests: list[str] = []
    page = open_page("about:blank")
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    ready(page)
    inverse = page.locator("#two-cards [data-rule=inverse]")
    expect(inverse.locator("dd").nth(1)).to_have_text("0.009980 / 0.009980")
    page.get_by_role("button", name="Equal norms").first.click()
    expect(inverse.locator("dd").nth(0)).to_have_text("0.5000 / 0.5000")
    page.get_by_role("button", name="The paper's preset").click()
    expect(page.locator("#lab-fact-first")).to_have_text("first in step 333")
    assert page.locator("#lab-weights canvas").count() == 1
    page.get_by_label("Dark").check(force=True)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Copy the snippet").click()
    expect(page.locator("#choose-copied")).not_to_be_empty()
    assert page.get_by_role("link", name="Live runs").count() == 0
    asked = [url for url in requests if not url.startswith("data:")]
    assert asked == [file.as_uri()]


def test_an_export_replaces_a_file_and_refuses_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "explorer.html"
    file.write_text("old", encoding="utf-8")
    export(file)
    assert file.read_text(encoding="utf-8") == standalone()
    with pytest.raises(IsADirectoryError, match=r"path must be a file .*explorer\.html"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["explorer.html"]


def test_the_export_carries_the_licence_of_what_it_inlines() -> None:
    text = standalone()
    assert "Copyright (c) 2022 Leon Sorokin" in text
    assert "uPlot (v1.6.32)" in text
    assert text.count("<script>") == text.count("</script>") == 2
    assert not exporting._STYLE.search(text)
    assert not exporting._SCRIPT.search(text)


def test_modules_that_cannot_be_put_into_one_file_are_named(tmp_path: Path) -> None:
    module = tmp_path / "odd.js"
    module.write_text("export default 3;\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd\.js: only .* found 'export default 3;'"):
        exporting._bundle(module)
    module.write_text('import { a } from "./odd.js";\nexport const a = 1;\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd\.js imports itself"):
        exporting._bundle(module)
