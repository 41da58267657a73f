"""The station's page in headless Chromium: every flow, both themes, a desk and a phone."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("playwright", "fastapi", "uvicorn", "httpx") if importlib.util.find_spec(name) is None]
WHY = "no Chromium on the path" if CHROMIUM is None else f"not installed: {', '.join(MISSING)}" if MISSING else ""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
DESK, PHONE = {"width": 1024, "height": 768}, {"width": 390, "height": 844}
WAIT = 90_000  # ms; the machine may be busy

browsing = [pytest.mark.slow, pytest.mark.skipif(bool(WHY), reason=WHY)]


# ---------------------------------------------------------------- a browser, stations, pages


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fitted():
    """Models of rendered gears and weaves; stations copy before they change one."""
    from page_server import fit

    return {name: fit(name) for name in ("gear", "weave")}


@contextlib.contextmanager
def running(fitted, *names: str, login: bool = False):
    from page_stations import start_station

    models, pictures = ({name: fitted[name][at] for name in names} for at in (0, 1))
    station = start_station(models, pictures, login=login)
    try:
        yield station
    finally:
        station.close()


@pytest.fixture
def start(fitted):
    with contextlib.ExitStack() as stack:
        yield lambda *names, **options: stack.enter_context(running(fitted, *(names or ("gear",)), **options))


@pytest.fixture
def station(start):
    """An empty station with one model, for this test alone."""
    return start()


@pytest.fixture(scope="module")
def filled(fitted):
    """A station with 28 parts, some of them rusty; shared, so what a test changes it takes back."""
    with running(fitted, "gear") as station:
        for index in range(28):
            rgb = rusty(100 + index) if index % 8 == 5 else gear(100 + index)
            station.inspect(rgb, f"lot-{index // 10}-part-{index:02d}.png")
        yield station


@pytest.fixture
def opened(browser):
    """Open pages; at the end none may have complained or asked for anything from elsewhere."""
    contexts, complaints = [], []

    def open_page(station, view: str = "live", *, size=DESK, may_complain: str = "$^", **context):
        made = browser.new_context(viewport=size, reduced_motion="reduce", **context)
        contexts.append(made)
        page = made.new_page()
        page.set_default_timeout(WAIT)

        def complain(text: str) -> None:
            if not re.search(may_complain, text):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complain(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((station.url, "data:", "blob:"))
                else complain(f"asked for {request.url}")
            ),
        )
        page.goto(f"{station.url}/#/{view}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def gear(index: int = 50, defect: str | None = None) -> np.ndarray:
    from page_server import part

    return part(index, defect=defect, severity=1.0)


def rusty(index: int = 60) -> np.ndarray:
    return gear(index, "rust")


def expect(found):
    from playwright.sync_api import expect as playwright_expect

    playwright_expect.set_options(timeout=WAIT)
    return playwright_expect(found)


def verdict(page):
    return page.locator(".inspector .verdict")


def title(page):
    return page.locator(".inspector .title h1")


def wait_for_map(page):
    expect(page.locator(".inspector")).to_have_attribute("data-regions", re.compile(r"\d"))


def until(page, code: str, argument=None) -> None:
    """Wait until an expression holds. Playwright's own way needs eval, which the policy forbids."""
    ends = time.monotonic() + WAIT / 1000
    while not page.evaluate(code, argument):
        assert time.monotonic() < ends, code
        page.wait_for_timeout(50)


NOT_CONNECTED = "Failed to load resource|ERR_|net::"


def browser_test(function):
    for mark in browsing:
        function = mark(function)
    return function


# ---------------------------------------------------------------- live


@browser_test
def test_the_last_part_is_shown_with_its_verdict_in_words_shape_and_colour(station, opened):
    station.inspect(gear(), "part-1.png")
    seen = station.inspect(rusty(), "line/part-2.png")
    page = opened(station)
    expect(title(page)).to_have_text("part-2.png")
    expect(verdict(page).locator(".word")).to_have_text("Anomalous")
    expect(verdict(page).locator("svg.mark[data-verdict=anomalous]")).to_be_visible()
    red, green, _ = map(int, re.findall(r"\d+", verdict(page).evaluate("e => getComputedStyle(e).backgroundColor"))[:3])
    assert red > 2 * green
    expect(verdict(page).locator(".figures")).to_contain_text(f"{seen['score']:.4g}"[:4])
    wait_for_map(page)
    assert int(page.locator(".inspector").get_attribute("data-regions")) == len(seen["regions"])
    assert page.locator(".strip li").count() == 2
    page.locator(".strip button").nth(1).click()
    expect(verdict(page).locator(".word")).to_have_text("Normal")
    expect(verdict(page).locator("svg.mark[data-verdict=normal]")).to_be_visible()


@browser_test
def test_an_empty_station_says_what_to_do(station, opened):
    page = opened(station)
    expect(page.get_by_role("heading", name="Waiting for the first part")).to_be_visible()
    station.inspect(gear(), "first.png")
    expect(title(page)).to_have_text("first.png")


@browser_test
def test_parts_appear_as_they_come_and_are_announced(station, opened):
    station.inspect(gear(), "part-1.png")
    page = opened(station)
    expect(title(page)).to_have_text("part-1.png")
    expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    station.inspect(rusty(), "part-2.png")
    expect(title(page)).to_have_text("part-2.png")
    expect(page.locator("#announcer")).to_contain_text("part-2.png: Anomalous")
    expect(page.locator(".threshold .share")).to_contain_text("of the last 2 parts")


@browser_test
def test_an_older_part_stays_until_the_line_is_followed_again(station, opened):
    for index in range(3):
        station.inspect(gear(50 + index), f"part-{index}.png")
    page = opened(station)
    expect(title(page)).to_have_text("part-2.png")
    page.keyboard.press("ArrowRight")
    expect(title(page)).to_have_text("part-1.png")
    page.keyboard.press("j")
    expect(title(page)).to_have_text("part-0.png")
    page.keyboard.press("ArrowLeft")
    expect(title(page)).to_have_text("part-1.png")
    station.inspect(gear(70), "part-3.png")
    expect(page.locator(".follow")).to_contain_text("1 new")
    expect(title(page)).to_have_text("part-1.png")
    page.keyboard.press("l")
    expect(title(page)).to_have_text("part-3.png")
    expect(page.locator(".follow")).to_have_text("Following")


@browser_test
def test_the_part_is_held_while_the_pointer_is_on_the_picture(station, opened):
    station.inspect(gear(50), "part-0.png")
    page = opened(station)
    page.locator(".stage").hover()
    station.inspect(gear(51), "part-1.png")
    expect(page.locator(".follow")).to_contain_text("Held while you look, 1 new")
    expect(title(page)).to_have_text("part-0.png")
    page.locator(".brand").hover()
    expect(title(page)).to_have_text("part-1.png")


@browser_test
def test_a_lost_connection_is_plain_to_see_and_mends_itself(station, opened):
    station.inspect(gear(50), "part-0.png")
    page = opened(station, may_complain=NOT_CONNECTED)
    expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    station.stop()
    expect(page.locator("#notice")).to_contain_text("Not connected to the station")
    expect(page.locator(".connection")).to_have_text("Not connected")
    page.locator("#notice").get_by_role("button", name="Try now").click()  # still away
    expect(page.locator("#notice")).to_contain_text("Not connected to the station")
    station.start()
    station.inspect(gear(51), "part-1.png")
    expect(page.locator("#notice")).to_be_hidden()
    expect(title(page)).to_have_text("part-1.png")


@browser_test
def test_heat_and_outlines_can_be_turned_down_and_off(station, opened):
    station.inspect(rusty(), "part.png")
    page = opened(station)
    wait_for_map(page)
    heat = page.locator("canvas.heat")
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v > 0).length"
    assert heat.evaluate(drawn) > 20
    page.get_by_label("Opacity of the heat map").fill("0.2")
    assert heat.evaluate("c => c.style.opacity") == "0.2"
    page.locator(".stage").focus()
    page.keyboard.press("]")
    assert heat.evaluate("c => c.style.opacity") == "0.3"
    page.keyboard.press("h")
    expect(heat).to_be_hidden()
    expect(page.get_by_role("button", name="Heat map", exact=True)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("o")
    expect(page.locator(".overlay .line")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("button", name="Heat map", exact=True)).to_have_attribute("aria-pressed", "false")  # kept


@browser_test
def test_another_threshold_can_be_tried_without_changing_anything(station, opened):
    for index in range(8):
        station.inspect(rusty(80 + index) if index % 4 == 3 else gear(80 + index), f"part-{index}.png")
    scores = np.array(station.get("models/gear/scores", last=500)["scores"])
    page = opened(station)
    wait_for_map(page)
    slider = page.locator("#trial")
    before = int(page.locator(".inspector").get_attribute("data-regions"))
    lines = page.locator(".overlay .line").get_attribute("d")
    slider.focus()
    for _ in range(60):
        page.keyboard.press("PageDown" if before == 0 else "ArrowLeft")
    until(page, "(before) => document.querySelector('.overlay .line').getAttribute('d') !== before", lines)
    tried = page.evaluate("import('/static/state.js').then((module) => module.state.trial)")
    failing = int((scores > tried).sum())
    expect(page.locator(".threshold .share")).to_contain_text(f"of the last 8 parts would fail ({failing})")
    page.locator(".threshold").get_by_role("button", name="Reset").click()
    assert page.locator(".overlay .line").get_attribute("d") == lines
    assert station.get("models/gear/changes")["items"] == []


@browser_test
def test_any_place_shows_the_normal_place_it_was_compared_with(station, opened):
    seen = station.inspect(rusty(), "part.png")
    page = opened(station)
    wait_for_map(page)
    match = page.locator(".match")
    for index in range(3):
        expect(match.locator(".tile img").nth(index)).to_be_visible()
    with page.expect_response(re.compile(r"/match\?")) as asked:
        page.locator(".stage").hover(position={"x": 200, "y": 300})
    found = asked.value.json()
    expect(match.locator(".match-told")).to_contain_text(Path(found["normal"]["name"]).name)
    expect(match).to_contain_text("One of the pictures the model was made from")
    with page.expect_response(re.compile(r"/match\?")):
        page.keyboard.press("Shift+ArrowDown")  # the keyboard reaches every place too
    with page.expect_response(re.compile(r"/match\?")) as asked:
        page.keyboard.press("p")
    y, x = (int(value) for value in re.findall(r"[yx]=(\d+)", asked.value.url))
    y0, x0, y1, x1 = seen["regions"][0]["box"]
    assert y0 - 2 <= y <= y1 + 2 and x0 - 2 <= x <= x1 + 2


@browser_test
def test_a_click_holds_the_place_and_zoom_keeps_it(station, opened):
    station.inspect(rusty(), "part.png")
    page = opened(station)
    wait_for_map(page)
    stage = page.locator(".stage")
    stage.click(position={"x": 300, "y": 200})
    expect(stage).to_have_class(re.compile("held"))
    cross = page.locator(".overlay .cross").get_attribute("d")
    stage.hover(position={"x": 350, "y": 400})
    assert page.locator(".overlay .cross").get_attribute("d") == cross
    width = page.locator(".world").bounding_box()["width"]
    page.keyboard.press("+")
    assert page.locator(".world").bounding_box()["width"] == pytest.approx(1.5 * width, rel=0.01)
    page.keyboard.press("0")
    assert page.locator(".world").bounding_box()["width"] == pytest.approx(width, rel=0.01)


# ---------------------------------------------------------------- decisions


@browser_test
def test_this_is_normal_with_a_note_and_undo_by_the_keyboard_alone(station, opened):
    seen = station.inspect(rusty(), "part.png")
    n_normal = station.get("models/gear")["n_normal"]
    page = opened(station)
    expect(title(page)).to_have_text("part.png")
    page.keyboard.press("n")
    page.keyboard.type("rust is allowed here")
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    expect(page.locator(".toast")).to_contain_text("part.png: added to the model. It passes from now on.")
    expect(page.locator(".decided")).to_contain_text("Said to be normal by local")
    expect(page.locator(".decided")).to_contain_text("rust is allowed here")
    decision = station.get(f"inspections/{seen['id']}")["decision"]
    assert (decision["kind"], decision["note"], decision["appended"]) == ("normal", "rust is allowed here", True)
    assert station.get("models/gear")["n_normal"] == n_normal + 1
    assert station.inspect(rusty(), "again.png")["verdict"] == "normal"
    expect(title(page)).to_have_text("again.png")  # the page follows; a key pressed earlier would move from part.png
    page.keyboard.press("ArrowRight")
    expect(title(page)).to_have_text("part.png")
    page.keyboard.press("u")
    expect(page.locator(".toast").last).to_contain_text("undone")
    expect(page.get_by_role("button", name="This is normal")).to_be_visible()
    assert station.get(f"inspections/{seen['id']}")["decision"] is None
    assert station.get("models/gear")["n_normal"] == n_normal
    assert station.inspect(rusty(), "again-2.png")["verdict"] == "anomalous"


@browser_test
def test_this_is_a_defect_and_undo_by_the_mouse(station, opened):
    seen = station.inspect(gear(), "part.png")
    page = opened(station)
    page.get_by_role("button", name="This is a defect").click()
    expect(page.locator(".decided")).to_contain_text("Said to be a defect by local")
    expect(page.locator(".strip .by-person svg[data-verdict=anomalous]")).to_be_visible()
    assert station.get(f"inspections/{seen['id']}")["decision"]["kind"] == "defect"
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="This is a defect")).to_be_visible()
    assert station.get(f"inspections/{seen['id']}")["decision"] is None


@browser_test
def test_a_key_pressed_just_as_the_part_changes_decides_nothing(station, opened):
    station.inspect(gear(50), "part-0.png")
    page = opened(station)
    expect(title(page)).to_have_text("part-0.png")
    page.evaluate(
        """new MutationObserver(() => { if (document.querySelector('.title h1').textContent === 'part-1.png' && !window.pressed) {
             window.pressed = true; document.dispatchEvent(new KeyboardEvent('keydown', {key: 'b'})); } })
           .observe(document.body, {subtree: true, childList: true})"""
    )
    seen = station.inspect(gear(51), "part-1.png")
    expect(page.locator(".toast")).to_contain_text("just changed")
    assert station.get(f"inspections/{seen['id']}")["decision"] is None


@browser_test
def test_what_another_window_decides_is_seen_here(station, opened):
    seen = station.inspect(rusty(), "part.png")
    page = opened(station)
    expect(page.get_by_role("button", name="This is normal")).to_be_visible()
    expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    station.client.post(
        f"inspections/{seen['id']}/decisions", json={"kind": "defect", "note": "seen elsewhere"}
    ).raise_for_status()
    expect(page.locator(".decided")).to_contain_text("seen elsewhere")


@browser_test
def test_who_writes_a_note_is_not_disturbed(station, opened):
    station.inspect(rusty(), "part.png")
    page = opened(station)
    expect(title(page)).to_have_text("part.png")
    expect(page.locator(".connection")).to_have_attribute("data-state", "live")
    page.keyboard.press("n")
    page.keyboard.type("half a ")
    station.inspect(gear(), "next.png")
    expect(page.locator(".follow")).to_contain_text("Held while you look, 1 new")
    station.client.put(
        "models/gear/threshold", json={"max_false_alarms": 0.2}
    ).raise_for_status()  # an event about the model
    page.wait_for_timeout(500)
    page.keyboard.type("note")
    expect(title(page)).to_have_text("part.png")
    expect(page.locator("#note")).to_have_value("half a note")
    expect(page.locator("#note")).to_be_focused()


@browser_test
def test_names_from_outside_stay_text(station, opened):
    evil = "<img src=x onerror=\"document.title='owned'\">.png"
    station.inspect(rusty(), evil)
    page = opened(station)
    expect(title(page)).to_have_text(evil)
    page.goto(f"{station.url}/#/history")
    expect(page.locator(".history-table .name a")).to_have_text(evil)
    assert "owned" not in page.title()


# ---------------------------------------------------------------- inspect


@browser_test
def test_chosen_files_go_through_the_queue_and_bad_ones_say_why(station, opened, tmp_path):
    from page_server import png

    files = {
        "good.png": png(gear()),
        "rusty.png": png(rusty()),
        "broken.png": b"\x89PNG\r\n\x1a\nno",
        "notes.txt": b"hello",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    page = opened(station, "inspect", may_complain="Failed to load resource")
    page.locator("#files").set_input_files([str(tmp_path / name) for name in files])
    expect(page.locator(".summary")).to_have_text("3 of 3 pictures done, 1 failed.")
    row = {name: page.locator(".queue li", has_text=name) for name in files}
    expect(row["good.png"]).to_contain_text("Normal")
    expect(row["rusty.png"]).to_contain_text("Anomalous")
    expect(row["broken.png"]).to_have_attribute("data-state", "failed")
    expect(row["broken.png"].get_by_role("button", name="Try again")).to_be_visible()
    assert row["notes.txt"].count() == 0
    assert station.get("inspections")["total"] == 2
    row["rusty.png"].locator("a").click()
    expect(verdict(page).locator(".word")).to_have_text("Anomalous")
    page.keyboard.press("Escape")
    expect(page.locator(".summary")).to_contain_text("3 of 3")  # the queue is still there


@browser_test
def test_a_folder_is_taken_with_all_that_lies_in_it(station, opened, tmp_path):
    from page_server import png

    (tmp_path / "lot" / "inner").mkdir(parents=True)
    (tmp_path / "lot" / "a.png").write_bytes(png(gear(50)))
    (tmp_path / "lot" / "inner" / "b.png").write_bytes(png(gear(51)))
    page = opened(station, "inspect")
    page.locator("#folder").set_input_files(str(tmp_path / "lot"))
    expect(page.locator(".summary")).to_have_text("2 of 2 pictures done.")
    assert {Path(item["name"]).name for item in station.get("inspections")["items"]} == {"a.png", "b.png"}
    expect(page.locator(".queue")).to_contain_text("lot/inner/b.png")


@browser_test
def test_files_can_be_dropped_on_any_view(station, opened):
    from page_server import png

    page = opened(station, "history")
    expect(page.locator(".pages")).to_contain_text("Nothing fits")
    data = list(png(gear()))
    transfer = page.evaluate_handle(
        "(data) => { const t = new DataTransfer(); t.items.add(new File([new Uint8Array(data)], 'dropped.png', {type: 'image/png'})); return t; }",
        data,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#drop-shade")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop-shade")).to_be_hidden()
    expect(page.locator(".queue li", has_text="dropped.png")).to_contain_text("Normal")


@browser_test
def test_a_busy_station_is_asked_again(station, opened, tmp_path):
    from page_server import png

    refused = []

    def busy(route):
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        body = {"error": {"code": "overloaded", "message": "Too many wait.", "hint": None}}
        route.fulfill(status=503, headers={"Retry-After": "1"}, content_type="application/json", body=json.dumps(body))

    (tmp_path / "part.png").write_bytes(png(gear()))
    page = opened(station, "inspect", may_complain="503")
    page.route("**/models/gear/inspections?*", busy)
    page.locator("#files").set_input_files(str(tmp_path / "part.png"))
    expect(page.locator(".queue li")).to_contain_text("Trying again")
    expect(page.locator(".queue li")).to_contain_text("Normal")
    assert len(refused) == 1


@browser_test
def test_the_camera_captures_and_inspects(station, opened):
    page = opened(station, "inspect", permissions=["camera"])
    page.get_by_role("button", name="Use a camera").click()
    until(page, "document.querySelector('video')?.videoWidth > 0")
    page.keyboard.press("c")
    expect(page.locator(".queue li[data-state=done]")).to_have_count(1)
    (seen,) = station.get("inspections")["items"]
    assert seen["source"] == "camera" and seen["media_type"] == "image/png"
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.locator("video")).to_have_count(0)


# ---------------------------------------------------------------- history and trends


@browser_test
def test_the_history_is_filtered_and_paged(filled, opened):
    page = opened(filled, "history")
    rows = page.locator(".history-table tbody tr")
    expect(rows).to_have_count(25)
    expect(page.locator(".pages")).to_contain_text("1–25 of 28")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(3)
    expect(page.locator(".pages")).to_contain_text("26–28 of 28")
    page.get_by_role("button", name="Newer").click()
    expect(rows).to_have_count(25)
    page.get_by_label("Verdict").select_option("anomalous")
    bad = filled.get("inspections", verdict="anomalous")["total"]
    expect(rows).to_have_count(bad)
    assert page.locator(".verdict-cell[data-verdict=normal]").count() == 0
    page.get_by_label("Verdict").select_option("")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("lot-2")
    expect(rows).to_have_count(8)
    page.get_by_role("button", name="Clear").click()
    expect(rows).to_have_count(25)
    page.get_by_label("Score from").fill("1e9")
    expect(page.locator(".pages")).to_contain_text("Nothing fits these filters")


@browser_test
def test_the_history_by_the_keyboard_alone(filled, opened):
    page = opened(filled, "history")
    expect(page.locator("tr[aria-current]")).to_contain_text("part-27.png")
    page.keyboard.press("j")
    expect(page.locator("tr[aria-current]")).to_contain_text("part-26.png")
    page.keyboard.press("b")
    expect(page.locator("tr[aria-current]")).to_contain_text("a defect, local")
    page.keyboard.press("u")
    expect(page.locator("tr[aria-current] .decision-cell")).to_have_text("")
    page.keyboard.press("Enter")
    expect(title(page)).to_have_text("lot-2-part-26.png")
    page.keyboard.press("ArrowRight")
    expect(title(page)).to_have_text("lot-2-part-25.png")
    expect(page.locator(".crumbs")).to_contain_text("3 of 25")
    page.keyboard.press("Escape")
    expect(page.locator(".history-table tbody tr")).to_have_count(25)
    page.keyboard.press("2")
    expect(page.locator(".drop")).to_be_visible()
    page.keyboard.press("5")
    expect(page.locator(".model")).to_be_visible()


@browser_test
def test_undone_decisions_stay_to_be_seen(station, opened):
    seen = station.inspect(gear(), "part.png")
    made = station.client.post(f"inspections/{seen['id']}/decisions", json={"kind": "defect", "note": ""}).json()
    station.client.post(f"decisions/{made['id']}/undo").raise_for_status()
    page = opened(station, f"inspection/{seen['id']}")
    expect(page.locator(".said")).to_contain_text("Said to be a defect by local")
    expect(page.locator(".said")).to_contain_text("undone by local")


@browser_test
def test_a_part_that_is_not_there_is_told(filled, opened):
    page = opened(filled, "inspection/4711", may_complain="404")
    expect(page.get_by_role("heading", name="This cannot be shown")).to_be_visible()


@browser_test
def test_a_picture_that_was_cleaned_up_is_told(station, opened):
    seen = station.inspect(gear(), "part.png")
    page = opened(station)
    gone = {**seen, "files_removed_at": "2026-01-01T00:00:00+00:00"}
    page.route(f"**/inspections/{seen['id']}", lambda route: route.fulfill(json=gone))
    page.goto(f"{station.url}/#/inspection/{seen['id']}")
    expect(page.locator(".stage-note")).to_contain_text("no longer kept")


@browser_test
def test_trends_as_charts_and_as_tables(filled, opened):
    page = opened(filled, "trends")
    charts = page.locator("figure.chart")
    expect(charts).to_have_count(3)
    for index, what in enumerate(["Scores over time", "Drift", "Parts and failures"]):
        expect(charts.nth(index).get_by_role("heading")).to_have_text(what)
        assert len(charts.nth(index).get_by_role("img").get_attribute("aria-label")) > 30
    bad = filled.get("inspections", verdict="anomalous")["total"]
    expect(charts.nth(2)).to_contain_text(f"28 parts; {bad} anomalous")
    charts.nth(2).locator("summary").click()
    cells = charts.nth(2).locator("tbody td:nth-child(2)").all_text_contents()
    assert sum(map(int, cells)) == 28
    assert page.locator("svg.density rect.cell").count() > 3
    page.get_by_role("button", name="8 hours", exact=True).click()
    expect(page.get_by_role("button", name="8 hours", exact=True)).to_have_attribute("aria-pressed", "true")


# ---------------------------------------------------------------- model


@browser_test
def test_the_model_page_shows_what_is_kept_and_where_it_came_from(station, opened):
    seen = station.inspect(rusty(), "part.png")
    station.client.post(f"inspections/{seen['id']}/decisions", json={"kind": "normal", "note": ""}).raise_for_status()
    page = opened(station, "model")
    expect(page.locator(".normals li")).to_have_count(9)
    expect(page.locator(".normals li").filter(has_text="Added by local")).to_have_count(1)
    expect(page.locator(".normals li").filter(has_text="From the start")).to_have_count(8)
    expect(page.locator(".changes")).to_contain_text("Added 1 picture from part")
    expect(page.locator(".promise")).to_contain_text("of normal parts fail")
    page.locator(".changes a").click()
    expect(title(page)).to_have_text("part.png")


@browser_test
def test_removing_a_normal_picture_asks_first(station, opened):
    page = opened(station, "model")
    first = page.locator(".normals li").first
    first.get_by_role("button", name=re.compile("Remove")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Remove this normal picture?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    assert station.get("models/gear")["n_normal"] == 8
    first.get_by_role("button", name=re.compile("Remove")).click()
    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".normals li")).to_have_count(7)
    expect(page.locator(".changes")).to_contain_text("Removed 1 picture")
    assert station.get("models/gear")["n_normal"] == 7


@browser_test
def test_normal_pictures_are_added_and_the_threshold_is_moved(station, opened, tmp_path):
    from page_server import png

    (tmp_path / "new.png").write_bytes(png(gear(200)))
    page = opened(station, "model")
    expect(page.locator(".normals li")).to_have_count(8)
    page.locator(".model input[type=file]").set_input_files(str(tmp_path / "new.png"))
    expect(page.locator(".normals li")).to_have_count(9)
    page.get_by_label("False alarms at most").fill("25")
    page.evaluate("import('/static/state.js').then((module) => module.emit('model', 'gear'))")  # drawn again meanwhile
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Set").click()
    expect(page.locator(".changes")).to_contain_text("Threshold moved to 25 %")
    assert station.get("models/gear")["max_false_alarms"] == pytest.approx(0.25)
    page.get_by_role("button", name="Load again from disk").click()
    expect(page.locator(".toast").last).to_contain_text("loaded again")


@browser_test
def test_the_matched_picture_leads_to_its_place_in_the_model(station, opened):
    station.inspect(rusty(), "part.png")
    page = opened(station)
    wait_for_map(page)
    link = page.locator(".match-told a")
    name = link.text_content()
    link.click()
    expect(page.locator(".normals li.asked .name")).to_have_text(name)


@browser_test
def test_one_of_several_models_is_chosen(start, opened):
    from page_server import part

    station = start("gear", "weave")
    station.inspect(gear(), "gear.png", "gear")
    station.inspect(part(50, category="weave"), "weave.png", "weave")
    page = opened(station)
    expect(title(page)).to_have_text("gear.png")
    page.get_by_label("Model").select_option("weave")
    expect(title(page)).to_have_text("weave.png")
    assert page.locator(".strip li").count() == 1
    page.reload()
    expect(title(page)).to_have_text("weave.png")  # kept


# ---------------------------------------------------------------- who may do what


def log_in(page, role: str) -> None:
    from page_server import TOKENS

    page.get_by_label("Your token").fill(TOKENS[role])
    page.get_by_role("button", name="Log in").click()


@browser_test
def test_a_token_is_asked_for_and_the_cookie_is_out_of_reach(start, opened):
    station = start(login=True)
    station.inspect(gear(), "part.png")
    page = opened(station, may_complain="401")
    page.get_by_label("Your token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert").filter(has_text="not known")).to_be_visible()
    log_in(page, "manage")
    expect(title(page)).to_have_text("part.png")
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    page.keyboard.press("b")  # with the CSRF token
    expect(page.locator(".decided")).to_contain_text("by max")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Your token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Your token")).to_be_visible()


@browser_test
@pytest.mark.parametrize("role", ["inspect", "decide", "manage"])
def test_what_one_may_not_do_is_not_shown(start, opened, role):
    station = start(login=True)
    seen = station.inspect(rusty(), "part.png")
    page = opened(station, may_complain="401")
    log_in(page, role)
    expect(title(page)).to_have_text("part.png")
    assert page.get_by_role("button", name="This is normal").count() == (role != "inspect")
    if role == "inspect":
        page.keyboard.press("b")
        page.wait_for_timeout(300)
        assert station.get(f"inspections/{seen['id']}")["decision"] is None
    page.goto(f"{station.url}/#/model")
    expect(page.locator(".normals li")).to_have_count(8)
    manages = role == "manage"
    assert page.get_by_role("button", name=re.compile("^Remove ")).count() == (8 if manages else 0)
    assert page.get_by_role("button", name="Set").count() == manages
    assert page.get_by_role("button", name="Add pictures").count() == manages


# ---------------------------------------------------------------- for everybody


@browser_test
def test_the_help_shows_every_key_and_letters_can_be_switched_off(station, opened):
    station.inspect(gear(), "part.png")
    page = opened(station)
    expect(title(page)).to_have_text("part.png")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    keys = page.evaluate(
        "import('/static/keys.js').then((module) => module.KEYS.flatMap(([, group]) => group.map(([, , what]) => what)))"
    )
    assert len(keys) > 25
    for what in keys:
        expect(dialog).to_contain_text(what)
    dialog.get_by_label("Single letters work as commands").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("h")
    expect(page.get_by_role("button", name="Heat map", exact=True)).to_have_attribute("aria-pressed", "true")


@browser_test
def test_the_theme_follows_the_system_until_one_is_chosen(filled, opened):
    page = opened(filled, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    expect(page.locator("#top")).to_be_visible()
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert light != dark
    page.get_by_role("button", name=re.compile("Theme")).click()  # light
    page.get_by_role("button", name=re.compile("Theme")).click()  # dark
    assert page.evaluate(ground) == dark
    page.reload()
    until(page, f"{ground} === {json.dumps(dark)}")


def check(name: str) -> str:
    """A function of page_checks.js, to be run in the page."""
    return f"() => {{ {Path(__file__).with_name('page_checks.js').read_text(encoding='utf-8')}; return {name}(); }}"


VIEWS = ["live", "inspection/2", "inspect", "history", "trends", "model"]


@browser_test
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(filled, opened, theme):
    page = opened(filled, color_scheme=theme)
    faint = []
    for view in VIEWS:
        page.goto(f"{filled.url}/#/{view}")
        page.wait_for_timeout(1200)
        faint += [f"{view}: {one}" for one in page.evaluate(check("contrast"))]
    assert faint == []


@browser_test
@pytest.mark.parametrize("size", [DESK, PHONE, {"width": 1920, "height": 1080}], ids=lambda size: f"{size['width']}")
def test_everything_has_its_name_its_place_and_its_size(filled, opened, size):
    page = opened(filled, size=size)
    wrong = []
    for view in VIEWS:
        page.goto(f"{filled.url}/#/{view}")
        page.wait_for_timeout(1200)
        wrong += [f"{view}: {one}" for one in page.evaluate(check("layout"))]
    assert wrong == []


@browser_test
def test_the_verdict_can_be_read_from_two_metres(station, opened):
    station.inspect(rusty(), "part.png")
    for size in (DESK, PHONE):
        page = opened(station, size=size)
        word = verdict(page).locator(".word")
        expect(word).to_have_text("Anomalous")
        assert float(word.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) >= 38  # 10 mm at 96 dpi


@browser_test
def test_focus_is_seen_and_goes_through_the_page_in_order(station, opened):
    station.inspect(gear(), "part.png")
    page = opened(station)
    expect(title(page)).to_have_text("part.png")
    seen = []
    for _ in range(26):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
                 return [e.className || e.id || e.tagName, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"""
        )
        seen.append(focused)
    assert all(style != "none" and width >= 2 for name, style, width in seen if name != "BODY")
    names = [name for name, _, _ in seen]
    assert names.index("stage") < next(at for at, name in enumerate(names) if name.startswith("decide good"))


@browser_test
def test_on_a_phone_a_tap_compares_and_the_tabs_change_views(station, opened):
    station.inspect(rusty(), "part.png")
    page = opened(station, size=PHONE, has_touch=True)
    wait_for_map(page)
    with page.expect_response(re.compile(r"/match\?")):
        page.locator(".stage").tap(position={"x": 100, "y": 120})
    expect(page.locator(".stage")).to_have_class(re.compile("held"))
    page.locator("#tabs").get_by_role("link", name="Model").tap()
    expect(page.locator(".normals li")).to_have_count(8)


@browser_test
def test_a_new_part_does_not_scroll_a_phone(station, opened):
    for index in range(6):
        station.inspect(gear(50 + index), f"part-{index}.png")
    page = opened(station, size=PHONE)
    expect(title(page)).to_have_text("part-5.png")
    page.locator(".strip button").nth(4).dispatch_event("click")
    expect(title(page)).to_have_text("part-1.png")
    assert page.locator("#main").evaluate("e => e.scrollTop") == 0
    assert page.locator(".strip").evaluate("e => e.scrollLeft") > 0


@browser_test
def test_nothing_moves_for_those_who_asked_for_it(station, opened):
    station.inspect(gear(), "part.png")
    page = opened(station)
    page.get_by_role("button", name="This is a defect").click()
    expect(page.locator(".toast")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0


# ---------------------------------------------------------------- arithmetic in the browser


def in_page(page, module: str, code: str, argument=None):
    return page.evaluate(f"async (argument) => {{ const m = await import('/static/{module}'); {code} }}", argument)


@browser_test
def test_regions_in_the_browser_are_those_of_the_service(filled, opened):
    from spadework.scores import find_regions

    page = opened(filled)
    rng = np.random.default_rng(3)
    for threshold in (0.4, 0.7, 0.95):
        score_map = rng.random((23, 31), np.float32)
        score_map[:2] = np.nan
        sent = {
            "height": 23,
            "width": 31,
            "data": [None if np.isnan(v) else float(v) for v in score_map.ravel()],
            "threshold": threshold,
        }
        found = in_page(
            page,
            "map.js",
            "const data = Float32Array.from(argument.data, (v) => v === null ? NaN : v); return m.regions({...argument, data}, argument.threshold);",
            sent,
        )
        wanted = find_regions(score_map, threshold)
        assert [(r["area"], r["y"], r["x"]) for r in found] == [(r.area, *r.peak) for r in wanted]


@browser_test
def test_contours_surround_what_lies_above(filled, opened):
    page = opened(filled)
    length = """
      const data = new Float32Array(400).fill(argument.low);
      for (let y = 5; y < 15; y += 1) for (let x = argument.left; x < argument.left + 10; x += 1) data[20 * y + x] = 1;
      const path = m.contours({height: 20, width: 20, data}, 0.5, [20, 20]);
      const ends = path.split('M').slice(1).map((line) => line.split('L').map((p) => p.split(' ').map(Number)));
      return ends.reduce((sum, [a, b]) => sum + Math.hypot(a[0] - b[0], a[1] - b[1]), 0);"""
    inside = in_page(page, "map.js", length, {"low": 0, "left": 5})
    around = 4 * 9 + 4 * np.sqrt(0.5)  # a square of 10, its corners cut at half a pixel
    assert inside == pytest.approx(around, abs=0.05)
    at_the_edge = in_page(page, "map.js", length, {"low": 0, "left": 0})
    assert at_the_edge == pytest.approx(inside, abs=1.5)  # closed there too


@browser_test
def test_a_pooled_map_keeps_its_peaks(filled, opened):
    page = opened(filled)
    score_map = np.random.default_rng(4).random((50, 37), np.float32)
    found = in_page(
        page,
        "map.js",
        "const p = m.pool({height: 50, width: 37, data: Float32Array.from(argument)}, 16); return [p.height, p.width, Math.max(...p.data), m.peak(p).score];",
        score_map.ravel().tolist(),
    )
    assert found[:2] == [13, 10]
    assert found[2] == found[3] == pytest.approx(float(score_map.max()))


@browser_test
def test_events_are_read_however_the_network_cuts_them(filled, opened):
    page = opened(filled)
    text = 'retry: 1000\n: alive\n\nevent: inspection\nid: ab-1-7\ndata: {"id": 7}\n\n: alive\n\nevent: resync\nid: ab-2-7\ndata: {}\n\n'
    for size in (1, 7, 500):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        found = in_page(
            page,
            "events.js",
            "const got = []; const feed = m.parser((e) => got.push(e)); argument.forEach(feed); return got;",
            pieces,
        )
        assert found == [
            {"kind": "inspection", "id": "ab-1-7", "data": '{"id": 7}'},
            {"kind": "resync", "id": "ab-2-7", "data": "{}"},
        ]


@browser_test
def test_the_scale_of_scores_goes_there_and_back(filled, opened):
    page = opened(filled)
    for values in ([3.0, 40.0, 900.0], [0.0, 5.0, 7.0], [-2.0, 1.0], [4.0], []):
        low, high, back = in_page(
            page,
            "scale.js",
            "const s = m.makeScale(argument); return [s.share(s.low), s.share(s.high), argument.map((v) => s.value(s.share(v)))];",
            values,
        )
        assert (low, high) == (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-9))
        for value, again in zip(values, back, strict=True):
            assert (
                again == pytest.approx(value, rel=1e-6) or value == 0.0
            )  # zero has no logarithm: it lies at the low end
