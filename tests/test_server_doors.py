"""Who may enter: tokens, sessions, roles, names of the station, other web sites; how much each may ask; what logs say."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from spadework.server.auth import LOCAL, Doorkeeper, Origins, Principal, Sessions
from spadework.server.limits import Rate, Room
from spadework.server.logs import log, set_up
from spadework.server.problems import Json, Problem
from spadework.server.settings import Settings, Token

TOKENS = tuple(Token(role, role, f"token-of-{role}-0123456789") for role in ("inspect", "decide", "manage"))


def settings(**changes) -> Settings:
    return Settings(**{"models": {"part": Path("part.spade")}, "folder": Path("station"), **changes})


def code_of(call, *arguments, **named) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        call(*arguments, **named)
    return caught.value.status, caught.value.code


# ---------------------------------------------------------------- who


def test_without_tokens_everybody_here_may_do_everything():
    assert Doorkeeper(settings()).admit("POST", {}, {}, "manage") == LOCAL


@pytest.mark.parametrize("has", ["inspect", "decide", "manage"])
@pytest.mark.parametrize("needs", ["inspect", "decide", "manage"])
def test_a_role_may_what_those_below_may(has, needs):
    door = Doorkeeper(settings(tokens=TOKENS))
    headers = {"authorization": f"Bearer token-of-{has}-0123456789"}
    order = ["inspect", "decide", "manage"]
    if order.index(has) >= order.index(needs):
        assert door.admit("POST", headers, {}, needs).who == has
    else:
        assert code_of(door.admit, "POST", headers, {}, needs) == (403, "role")


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer ", "Bearer", "Basic dG9rZW4=", "bearer token-of-manage-012345678", "Bearer \udcff"],
)
def test_unknown_tokens_are_refused(header):
    door = Doorkeeper(settings(tokens=TOKENS))
    assert code_of(door.admit, "GET", {"authorization": header}, {}, "inspect") == (401, "unauthorised")
    assert code_of(door.admit, "GET", {}, {}, "inspect") == (401, "unauthorised")


def test_every_token_is_compared_also_after_one_matched(monkeypatch):
    import hmac

    door, calls = Doorkeeper(settings(tokens=TOKENS)), []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: calls.append(1) or compare(a, b))
    assert door.holder("token-of-inspect-0123456789").who == "inspect"
    assert len(calls) == len(TOKENS)


def test_tokens_are_not_kept_as_they_came():
    kept = repr(vars(Doorkeeper(settings(tokens=TOKENS))))
    assert not any(token.secret in kept for token in TOKENS)


def test_a_session_needs_its_csrf_token_where_it_changes_something():
    door = Doorkeeper(settings(tokens=TOKENS))
    key, principal = door.sessions.start(Principal("ann", "manage"))
    cookies = {door.cookie: key}
    assert door.admit("GET", {}, cookies, "inspect") == principal
    assert code_of(door.admit, "POST", {}, cookies, "inspect") == (403, "csrf")
    assert code_of(door.admit, "DELETE", {"x-csrf-token": "é"}, cookies, "inspect") == (403, "csrf")
    assert door.admit("POST", {"x-csrf-token": principal.csrf}, cookies, "manage").who == "ann"
    door.sessions.end(key)
    assert code_of(door.admit, "GET", {}, cookies, "inspect") == (401, "unauthorised")


def test_a_bearer_header_that_is_wrong_is_not_made_good_by_a_cookie():
    door = Doorkeeper(settings(tokens=TOKENS))
    key, _ = door.sessions.start(Principal("ann", "manage"))
    assert code_of(door.admit, "GET", {"authorization": "Bearer wrong"}, {door.cookie: key}, "inspect")[0] == 401


def test_sessions_end_when_nothing_is_asked(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    sessions = Sessions(seconds=10)
    key, _ = sessions.start(LOCAL)
    for now[0] in (9.0, 18.0):
        assert sessions.find(key) is not None
    now[0] = 28.5
    assert sessions.find(key) is None


def test_listening_alone_does_not_let_a_session_live_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    door = Doorkeeper(settings(tokens=TOKENS))
    key, principal = door.sessions.start(Principal("ann", "manage"))
    cookies = {door.cookie: key}
    for now[0] in range(0, 12 * 3600, 3600):
        assert door.identify({}, cookies, renew=False) == principal
    now[0] = 12 * 3600 + 1.0
    assert code_of(door.identify, {}, cookies, renew=False)[0] == 401
    assert not door.sessions._open


def test_two_stations_on_one_machine_have_cookies_of_their_own():
    assert Doorkeeper(settings(port=1)).cookie != Doorkeeper(settings(port=2)).cookie


# ---------------------------------------------------------------- where from


def check(headers, *, method="POST", api=True, **changes):
    Origins(settings(**changes)).check(method, "http", {"host": "127.0.0.1:8000", **headers}, api=api)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.0.0.2"])
def test_own_names(host):
    check({"host": host})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "192.168.0.1", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_other_names_are_refused(host):
    assert code_of(check, {"host": host}, api=False, method="GET") == (421, "host")


def test_further_names_are_told():
    check({"host": "Station.Example"}, hosts=("station.example",), tokens=TOKENS)
    check({"host": "10.1.2.3:80"}, host="0.0.0.0", tokens=TOKENS)
    assert code_of(check, {"host": "evil.example"}, host="0.0.0.0", tokens=TOKENS) == (421, "host")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "https://127.0.0.1:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_web_sites_change_nothing(headers):
    assert code_of(check, headers) == (403, "origin")


def test_other_web_sites_read_nothing_of_the_service():
    assert code_of(check, {"sec-fetch-site": "cross-site"}, method="GET") == (403, "origin")
    check({"sec-fetch-site": "cross-site"}, method="GET", api=False)  # a link to the page


def test_the_own_page_and_programs_may():
    check({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"})
    check({"sec-fetch-site": "none"}, method="GET")
    check({})


@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto", "x-forwarded-server", "cf-connecting-ip"],
)
def test_a_proxy_in_front_of_an_open_station_is_refused(name):
    assert code_of(check, {name: "1.2.3.4"}, method="GET", api=False) == (403, "proxy")
    check({name: "1.2.3.4"}, tokens=TOKENS)


# ---------------------------------------------------------------- how much


def test_a_rate_lets_a_burst_through_and_then_says_when():
    rate = Rate(2.0)
    for _ in range(4):
        rate.take("10.0.0.1", now=100.0)
    with pytest.raises(Problem) as caught:
        rate.take("10.0.0.1", now=100.0)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    rate.take("10.0.0.2", now=100.0)
    rate.take("10.0.0.1", now=100.6)
    assert code_of(rate.take, "10.0.0.1", now=100.7)[0] == 429


def test_a_rate_is_not_evaded_by_another_address_of_the_same_client():
    rate = Rate(1.0, burst=3)
    for index in range(3):
        rate.take(f"2001:db8:0:7::{index}", now=0.0)
    assert code_of(rate.take, "2001:db8:0:7:ffff::1", now=0.0)[0] == 429
    rate.take("2001:db8:0:8::1", now=0.0)
    for address in ("10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "fe80::1%eth0"):
        rate.take(address, now=0.0)
    for index in range(3):  # what a proxy makes up
        rate.take("x" * 10_000 + str(index), now=0.0)
    assert code_of(rate.take, "something else", now=0.0)[0] == 429
    assert sum(map(len, rate._buckets)) < 1000


def test_a_slow_rate_says_to_wait_long():
    rate = Rate(0.1)
    rate.take("10.0.0.1", now=0.0)
    with pytest.raises(Problem) as caught:
        rate.take("10.0.0.1", now=0.0)
    assert int(caught.value.headers["Retry-After"]) >= 10


def test_room_is_bounded_and_given_back():
    room = Room(2, 100)
    with room.place(), room.place():
        assert code_of(room.place().__enter__) == (503, "overloaded")
        assert room.taken == 2
    assert room.taken == 0
    with room.hold(500), pytest.raises(Problem) as caught:  # alone it always fits
        room.hold(1).__enter__()
    assert caught.value.headers["Retry-After"] == "1"
    with pytest.raises(ValueError), room.place(), room.hold(5):
        raise ValueError
    assert (room.taken, room.bytes) == (0, 0)


# ---------------------------------------------------------------- logs, answers


@pytest.fixture
def loggers():
    """Leaves loggers as they were."""
    names = ("spadework", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "alembic")
    before = [(logging.getLogger(name), vars(logging.getLogger(name)).copy()) for name in names]
    yield
    for logger, state in before:
        vars(logger).update(state)


def test_logs_are_json_lines(loggers):
    stream = io.StringIO()
    set_up(stream)
    log("request", path="/a\nb", who=None)
    try:
        raise ValueError("broken")
    except ValueError as error:
        log("failed", level=logging.ERROR, error=error)
    logging.getLogger("uvicorn.error").warning("line %d", 2)
    logging.getLogger("uvicorn.access").info("GET /?token=secret")
    logging.getLogger("spadework.watch").warning("a bad file")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request", "failed", "line 2", "a bad file"]
    assert lines[0]["path"] == "/a\nb"
    assert "ValueError: broken" in lines[1]["exception"]
    assert "secret" not in stream.getvalue()


def test_answers_hold_no_nan():
    assert Json({"a": [1, "ä"]}).body == '{"a":[1,"ä"]}'.encode()
    with pytest.raises(ValueError):
        Json({"a": float("nan")})
