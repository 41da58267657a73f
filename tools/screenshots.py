"""Make the docs' pictures of the station's page: python tools/screenshots.py [NAME...]

Needs Chromium and Playwright. Parts are rendered, the model is really fitted; the stand-in of the page's tests plays the service, for it can tell of
a day's parts at once. Each picture is written as a palette PNG below 150 KB into docs/images.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
IMAGES = ROOT / "docs" / "images"
LIMIT = 150_000
DESK, PHONE = (1024, 768), (390, 844)

# name -> view, size, theme, what to do first
SHOTS: dict[str, tuple[str, tuple[int, int], str, str]] = {
    "station-live": ("live", DESK, "light", "anomalous"),
    "station-live-dark": ("live", DESK, "dark", "anomalous"),
    "station-phone": ("live", PHONE, "light", "anomalous"),
    "station-inspect": ("inspect", DESK, "light", "upload"),
    "station-history": ("history", DESK, "light", ""),
    "station-trends": ("trends", DESK, "light", ""),
    "station-model": ("model", DESK, "light", ""),
    "station-help": ("live", DESK, "light", "help"),
}


def main() -> None:
    """Make all pictures, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(SHOTS)}; all by default")
    names = parser.parse_args().names or list(SHOTS)
    unknown = sorted(set(names) - set(SHOTS))
    if unknown:
        parser.error(f"no such picture: {', '.join(unknown)}; there are {', '.join(SHOTS)}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    service = filled_station()
    try:
        for name, data in shots(service, names):
            size = write(IMAGES / f"{name}.png", data)
            print(f"docs/images/{name}.png  {size / 1000:.0f} KB")
    finally:
        service.close()


def filled_station() -> Any:
    """A station after a day: parts, some of them rusty, two decided."""
    from page_server import FakeService, fit, part

    model, pictures = fit("gear", n_normal=12, size=256)
    service = FakeService({"gear": model}, {"gear": pictures})
    for index in range(90):
        defect = ("rust", "broken_tooth")[index % 2] if index % 9 in (0, 4) else None
        rgb = part(300 + index, defect=defect, size=256, severity=1.0)
        service.inspect(rgb, f"part-{index + 1:04d}.png", hours_ago=22.5 - 0.25 * index)
    service.store.decide(82, "defect", "dora", "rust at the rim")
    service.store.decide(86, "normal", "max", "from the new supplier")
    return service


def shots(service: Any, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each picture as a PNG."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in names:
            view, (width, height), theme, first = SHOTS[name]
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, locale="en-GB", reduced_motion="reduce"
            )
            page = context.new_page()
            page.goto(f"{service.url}/#/{view}")
            prepare(page, first)
            page.wait_for_timeout(1500)
            yield name, page.screenshot()
            context.close()
        browser.close()


def prepare(page: Any, first: str) -> None:
    """Bring a view to what the picture is to show."""
    if first in ("anomalous", "help"):
        page.locator(".strip button[data-verdict=anomalous]").first.click()
        page.wait_for_timeout(1000)
        page.mouse.move(5, 5)
        page.evaluate("document.getElementById('main').scrollTo(0, 0)")
    if first == "help":
        page.keyboard.press("?")
    if first == "upload":
        from page_server import part, png

        made = [("rust", 401), (None, 402), (None, 403), ("broken_tooth", 404), (None, 405), (None, 406)]
        files = [{"name": f"lot-7-{at:02d}.png", "mimeType": "image/png", "buffer": png(part(index, defect=defect, size=256, severity=1.0))}
                 for at, (defect, index) in enumerate(made, 1)]  # fmt: skip
        page.locator("#files").set_input_files(files)
        page.locator(".queue li[data-state=done]").nth(len(files) - 1).wait_for(timeout=60_000)


def write(path: Path, data: bytes) -> int:
    """Write a palette PNG, made smaller until it fits below the limit; returns its size in bytes."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for scale in (1.0, 0.85, 0.7, 0.5):
        packed = io.BytesIO()
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        # An octree keeps colours that few pixels have: those of the controls. Others spend them all on the greys of the part.
        palette = small.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette.save(packed, "PNG", optimize=True)
        if packed.tell() < LIMIT:
            break
    path.write_bytes(packed.getvalue())
    return packed.tell()


if __name__ == "__main__":
    main()
