"""Draws the pictures of README.md and docs/ from the job's output on the bundled samples.

`make run`, then `.venv/bin/python docs/draw_pictures.py output`. Pages are looked at by Debian's
Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from playwright.sync_api import sync_playwright

import rules
from beam_pipeline.bundled import BUNDLED_RULES
from beam_pipeline.pages import parts
from transforms.alerting.messages import compose

SHOWN = (
    "front-door_20260131T181000Z",
    "car-park_20260131T180417Z",
    "warehouse_20260131T181036Z",
    "hall_20260131T174653Z",
)
WIDTH = 480
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
COLOURS = {"alert": (220, 40, 40), "detection": (235, 150, 20), None: (120, 130, 140)}


def with_boxes(record: dict) -> Image.Image:
    """A picture with what was found in it: threats in colour, what is tolerated in grey."""
    with Image.open(record["uri"]) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture = picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    severities = {threat["detection"]: threat["severity"] for threat in record["threat"]["threats"]}
    for number, found in enumerate(record["detections"]):
        if found["conf"] < 0.5:
            continue
        x, y, width, height = found["bbox"]
        left, top = x * picture.width, y * picture.height
        right, bottom = left + width * picture.width, top + height * picture.height
        colour = COLOURS[severities.get(number)]
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = f"{found['label']} {found['conf']:.2f}"
        place = (left, max(0, top - 16))
        draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
        draw.text(place, text, fill="white", font=font)
    return picture


def photograph(page: str, picture: Path, width: int, height: int, *keys: str) -> None:
    """What a browser shows of the upper part of a page, by its address, once keys were pressed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        tab.goto(page)
        for key in keys:
            tab.keyboard.press(key)
            tab.wait_for_timeout(1000)
        tab.screenshot(path=picture, type="jpeg", quality=72)
        browser.close()


def photograph_mail(output: Path, picture: Path) -> None:
    """What a mail program shows of an alert about the first of the images."""
    ruleset = rules.load_rules(BUNDLED_RULES)
    (alert,) = (
        json.loads(record.read_text())
        for record in (output / "alerts").glob("front-door/*.json")
        if SHOWN[0] in record.read_text()
    )
    message = compose(alert, ruleset)
    address = parts.data_uri("image/jpeg", message.picture)
    page = message.html.replace(f"cid:{message.picture_name}", address)
    page = page.replace(output.resolve().as_uri(), "file:///srv/results")
    photograph(parts.data_uri("text/html", page.encode()), picture, 680, 750)


def photograph_console(output: Path, picture: Path) -> None:
    """What a browser shows of a console in which two incidents have been marked."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(output, Path(folder) / "output")  # Marks are written to it.
        words = ("serve", "--output", copy, "--rules", BUNDLED_RULES, "--port", "0")
        console = subprocess.Popen(
            [sys.executable, "-m", "beam_pipeline", *words, "--index", Path(folder) / "index"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            lines = iter(console.stdout.readline, "")
            address = next(match[0] for line in lines if (match := ADDRESS.search(line)))
            photograph(address, picture, 1440, 900, "j", "f", "j", "r")
        finally:
            console.terminate()
            console.wait()


def main() -> None:
    output, here = Path(sys.argv[1]), Path(__file__).parent
    shutil.copyfile(output / "chart" / "threats.png", here / "threats.png")
    report = (output / "report" / "report.html").resolve().as_uri()
    photograph(report, here / "report.jpg", 1280, 1800)
    photograph_mail(output, here / "alert_mail.jpg")
    photograph_console(output, here / "console.jpg")
    pictures = []
    for stem in SHOWN:
        record = output / "final" / stem.rsplit("_", 1)[0] / f"{stem}.json"
        pictures.append(with_boxes(json.loads(record.read_text())))
    height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (2 * WIDTH + 8, 2 * height + 8), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, ((number % 2) * (WIDTH + 8), (number // 2) * (height + 8)))
    sheet.save(here / "samples.jpg", quality=88)


if __name__ == "__main__":
    main()
