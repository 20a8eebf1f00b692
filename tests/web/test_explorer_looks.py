"""What must hold wherever one looks: it fits, it can be read, every control has a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from _contrast import contrasts
from gaba.web import export as exporting
from gaba.web.export import export, standalone

Open = Callable[..., Page]
LOOKS = [(375, "dark"), (1440, "light"), (320, "")]
MORE_LOOKS = [(375, "light"), (1440, "dark"), (768, ""), (1024, "")]
CONTROLS = {"button", "slider", "radio", "textbox", "spinbutton", "combobox", "link", "checkbox"}
CONTROLS |= {"DisclosureTriangle"}

BEYOND = """() => [...document.querySelectorAll("main *")].filter((one) => {
    const box = one.getBoundingClientRect();
    if (one.closest(".table-scroll, pre, .visually-hidden, .u-wrap")) return false;
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((one) => one.outerHTML.slice(0, 120))"""


def ready(page: Page) -> Page:
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
    return page


@pytest.mark.parametrize("looks", [LOOKS, pytest.param(MORE_LOOKS, marks=pytest.mark.slow)])
def test_it_fits_and_can_be_read(
    looks: list[tuple[int, str]], kept_page: Open, address: str
) -> None:
    page = ready(kept_page(address))
    page.locator("#many-count").fill("12")
    page.get_by_role("button", name="Equal norms").first.click()
    page.locator("details summary").first.click()
    for width, theme in looks:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert page.evaluate(BEYOND) == [], width
        if theme:
            found = contrasts(page)
            assert len(found) > 200
            assert [one for one in found if one[0] < 4.5] == [], (width, theme)


def test_every_control_has_a_role_and_a_name(kept_page: Open, address: str) -> None:
    page = ready(kept_page(address, fresh=False))
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
    assert len(names) == 38


def test_the_page_is_well_formed(kept_page: Open, address: str) -> None:
    page = ready(kept_page(address, fresh=False))
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
    expect(inverse.locator("dd").nth(2)).to_have_text("0.009980 / 0.009980")
    page.get_by_role("button", name="Equal norms").first.click()
    expect(inverse.locator("dd").nth(1)).to_have_text("0.5000 / 0.5000")
    page.get_by_role("button", name="paper", exact=True).click()
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
    assert text.count("<script>") == text.count('<script type="module">') == 1
    assert text.count("</script>") == 2
    assert not exporting._STYLE.search(text)
    assert not exporting._SCRIPT.search(text)


def test_the_modules_become_one_whose_names_differ() -> None:
    """A browser refuses a module that declares a name twice."""
    (text,) = re.findall(r'<script type="module">(.*?)</script>', standalone(), re.DOTALL)
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert len(names) > 100
    assert len(names) == len(set(names))
    assert re.findall(r"^(?:import|export)\b.*", text, re.MULTILINE) == []
