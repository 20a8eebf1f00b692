"""How well the texts of a page can be read, in whatever theme it shows."""

from __future__ import annotations

from playwright.sync_api import Page


def contrasts(page: Page) -> list[tuple[float, str]]:
    """Each visible text and field with its contrast to what is behind it, from 1 to 21."""
    return page.evaluate(CONTRASTS)


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
