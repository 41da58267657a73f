"""Live events: in order, to all, again after an absence, and never a queue that grows."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

pytest.importorskip("fastapi")
from spadework.server.events import COMMENT, GREETING, KEPT, WAITING, Events, Mark, stream


def start(events: Events) -> bytes:
    """What a new client is sent first when nothing happened yet."""
    return GREETING + f"id: {events.boot}-0-7\n\n".encode()


def parse(frames: list[bytes]) -> list[tuple[str, str, dict]]:
    """Kind, id and content of each event."""
    found = []
    for frame in frames:
        if b"data: " in frame:
            told = dict(line.split(": ", 1) for line in frame.decode().strip().splitlines())
            found.append((told["event"], told["id"], json.loads(told["data"])))
    return found


def run(script):
    """Run `script(events)` in a loop, with events open."""

    async def main():
        events = Events()
        events.open(asyncio.get_running_loop(), inspection=7)
        return await script(events)

    return asyncio.run(main())


async def take(body, n: int) -> list[bytes]:
    return [await asyncio.wait_for(anext(body), 5) for _ in range(n)]


def missed_none(number):
    raise AssertionError("asked for what was missed")


def test_events_come_in_order_from_any_thread():
    async def script(events):
        body = stream(events, None, missed_none, lambda: True)
        assert await take(body, 1) == [start(events)]
        waiting = asyncio.ensure_future(take(body, 20))
        await asyncio.sleep(0)
        threads = [threading.Thread(target=lambda: [events.publish("model", {}) for _ in range(5)]) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return parse(await waiting)

    numbers = [Mark.read(told[1]).number for told in run(script)]
    assert numbers == list(range(1, 21))


def test_who_comes_back_gets_what_came_since_and_nothing_twice():
    async def script(events):
        for number in range(5):
            events.publish("inspection", {"id": number}, inspection=10 + number)
        mark = Mark(events.boot, 3, 12)
        body = stream(events, mark, missed_none, lambda: True)
        found = await take(body, 3)  # the loop has not handed out the five yet: they also reach the queue
        events.publish("model", {})
        return parse([*found, *await take(body, 1)])

    assert [(kind, Mark.read(mark).number) for kind, mark, _ in run(script)] == [
        ("inspection", 4),
        ("inspection", 5),
        ("model", 6),
    ]


@pytest.mark.parametrize("boot", ["another", None])
def test_after_a_restart_or_a_long_time_the_history_tells(boot):
    async def script(events):
        for number in range(KEPT + 10):
            events.publish("inspection", {"id": number}, inspection=number)
        asked = []

        def missed(number):
            asked.append(number)
            return [(number + 1, {"id": number + 1})]

        body = stream(events, Mark(boot or events.boot, 2, 40), missed, lambda: True)
        return asked, parse(await take(body, 3)), events.boot

    asked, found, boot_now = run(script)
    assert asked == [40]
    assert [kind for kind, _, _ in found] == ["inspection", "resync"]
    # who goes away between the two goes on with the history from there, and still hears that other things may have changed
    assert found[0][1] == f"{boot or boot_now}-2-41"
    assert found[1][1] == f"{boot_now}-{KEPT + 10}-{KEPT + 9}"


def test_a_client_that_breaks_off_before_its_first_event_misses_nothing():
    async def script(events):
        events.publish("model", {"n": 1})
        body = stream(events, None, missed_none, lambda: True)
        (first,) = await take(body, 1)
        await body.aclose()
        mark = Mark.read(first.decode().rpartition("id: ")[2].strip())
        events.publish("inspection", {"n": 2}, inspection=8)  # while nobody listens
        return parse(await take(stream(events, mark, missed_none, lambda: True), 2))

    assert [told for _, _, told in run(script)] == [{"n": 2}]


def test_every_break_in_what_was_missed_is_taken_up_without_a_gap():
    """After a restart the history tells five; a client that goes away after each of them gets all, and the resync."""

    async def script(events):
        history = [(number, {"id": number}) for number in range(1, 13)]
        mark, got = Mark("another", 99, 7), []
        while "resync" not in [kind for kind, _, _ in got]:
            body = stream(events, mark, lambda after: [one for one in history if one[0] > after], lambda: True)
            got += parse((await take(body, 2))[1:])
            await body.aclose()
            mark = Mark.read(got[-1][1])
        return got

    found = run(script)
    assert [told.get("id") for _, _, told in found] == [8, 9, 10, 11, 12, None]


def test_a_client_that_does_not_read_is_cut_off_without_a_gap():
    async def script(events):
        body = stream(events, None, missed_none, lambda: True)
        await take(body, 1)
        waiting = asyncio.ensure_future(take(body, 1))  # it listens from now on
        await asyncio.sleep(0)
        for _ in range(WAITING + 50):
            events.publish("model", {})
        await asyncio.sleep(0.01)
        events.publish("model", {})
        rest = [*await waiting, *[message async for message in body]]
        return parse(rest), events.listening

    found, listening = run(script)
    numbers = [Mark.read(mark).number for _, mark, _ in found]
    assert numbers == list(range(1, len(numbers) + 1))
    assert WAITING <= len(numbers) <= WAITING + 1
    assert listening == 0


def test_silence_shows_that_the_line_is_alive_and_asks_who_listens():
    async def script(events):
        answers = [True, False]
        body = stream(events, None, missed_none, lambda: answers.pop(0), silence=0.01)
        return [message async for message in body], start(events)

    found, first = run(script)
    assert found == [first, COMMENT]


def test_who_is_no_longer_welcome_hears_no_more_however_much_happens():
    async def script(events):
        welcome = [True]
        body = stream(events, None, missed_none, lambda: welcome[0], silence=0.2)
        await take(body, 1)
        got = 0
        for number in range(100):
            events.publish("model", {})
            try:
                await take(body, 1)
            except StopAsyncIteration:
                break
            got += 1
            welcome[0] = number < 3
            await asyncio.sleep(0.02)
        return got

    assert 4 <= run(script) < 60


def test_a_stop_lets_all_go_after_what_waits():
    async def script(events):
        body = stream(events, None, missed_none, lambda: True)
        await take(body, 1)
        waiting = asyncio.ensure_future(take(body, 1))
        await asyncio.sleep(0)
        events.publish("model", {})
        events.publish("model", {})
        await asyncio.sleep(0.01)
        events.close()
        rest = [*await waiting, *[message async for message in body]]
        late = [message async for message in stream(events, None, missed_none, lambda: True)]
        return len(parse(rest)), late, events.now()

    count, late, now = run(script)
    assert (count, late) == (2, [GREETING + f"id: {now}\n\n".encode()])


@pytest.mark.parametrize(
    "text", ["", "a", "a-b-c", "a-1", "a-1-", "a--1-2", "a-1-2-3", "a-9999999999999999999999-1", "-1-١x"]
)
def test_ids_from_elsewhere_are_none(text):
    assert Mark.read(text) is None


def test_ids_are_read_as_they_were_written():
    assert Mark.read(str(Mark("ab", 3, 4))) == Mark("ab", 3, 4)
