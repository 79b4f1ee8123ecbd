"""What a page looks like: what is cut off, hard to read or nameless, and how it was looked at.

`references/` holds pages as they were looked at, an eighth of the width and height of the screen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

REFERENCES = Path(__file__).with_name("references")
SIZES = {"phone": (390, 844), "desk": (1440, 900)}

BROKEN = """() => {
    const broken = [], range = document.createRange();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
        const element = node.parentElement;
        if (!element.checkVisibility() || element.closest("script, .hidden, .skip")) continue;
        for (const found of node.data.matchAll(/[\\p{L}\\p{N}]+(?:,\\d{3})*/gu)) {
            if (found[0].length > 24) continue;
            range.setStart(node, found.index);
            range.setEnd(node, found.index + found[0].length);
            const lines = new Set([...range.getClientRects()].map((rect) => Math.round(rect.top)));
            if (lines.size > 1) broken.push(found[0]);
        }
    }
    return broken;
}"""
"""The words and numbers of up to 24 letters that stand on two lines."""

CUT_OFF = """() => [...document.querySelectorAll("body *")].filter((element) => {
    if (!element.checkVisibility() || element.closest(".hidden, .skip")) return false;
    const { left, right, width } = element.getBoundingClientRect();
    if (!width || (left >= -1 && right <= innerWidth + 1)) return false;
    return !element.closest(".wide");  // It says that it is wider than the screen.
}).map((element) => element.outerHTML.slice(0, 120))"""
"""What is beyond the sides of the screen, without a hint that it can be scrolled to."""

CONTRAST = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const found = parts(getComputedStyle(at).backgroundColor);
            if (found[3] !== 0) return light(found);
        }
    };
    const low = [];
    for (const element of document.querySelectorAll("body *:not(script, svg *)")) {
        const hasText = (node) => node.nodeType === 3 && node.data.trim();
        if (![...element.childNodes].some(hasText)) continue;
        const [a, b] = [light(parts(getComputedStyle(element).color)), behind(element)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push([element.tagName, element.className, ratio]);
    }
    return [behind(document.body), low];
}"""
"""How light the page is, and what has less contrast than WCAG 2.2 asks for (1.4.3, AA)."""

NAMELESS = """() => [
    ...[...document.images].filter((element) =>
        !element.alt.trim() && !element.closest("a")?.textContent.trim()),
    ...[...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
        .filter((element) => !element.labels.length),
    ...[...document.querySelectorAll("button, summary, a")].filter((element) =>
        !element.textContent.trim() && !element.querySelector("img")),
    ...[...document.querySelectorAll("[tabindex]:not(main)")].filter((element) =>
        element.tabIndex > 0
        || !(element.getAttribute("aria-label") ?? element.getAttribute("aria-labelledby"))),
    ...[...document.querySelectorAll("th")].filter((element) => !element.scope),
].map((element) => element.outerHTML.slice(0, 200))"""
"""What a screen reader has no name for."""

TOLERANCE = 60.0


def reduced(shot: Image.Image) -> Image.Image:
    """An eighth of the width and the height: of the letters, a grey remains."""
    return shot.convert("RGB").resize((shot.width // 8, shot.height // 8), Image.Resampling.BOX)


def difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference, 0 to 255, of areas of 32 pixels of the screen; letters may lie a few
    pixels elsewhere, as fonts differ."""
    a, b = (
        np.asarray(each.resize((each.width // 4, each.height // 4), Image.Resampling.BOX), float)
        for each in (one, other)
    )
    return float(np.abs(a - b).mean(axis=2).max())
