"""Lists, pages, counts and charts of the history, against the same asked of a plain list; on both databases."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from histories import START, clock, database_url, decide, history, postgresql_server, seen

from spadework.errors import InputError
from spadework.server.records import Filter, Inspection, NewChange

__all__ = ["clock", "database_url", "history", "postgresql_server"]  # fixtures


def at(seconds: float):
    return START + timedelta(seconds=seconds)


@pytest.fixture
def filled(history, clock) -> list[Inspection]:
    """60 inspections of two models, three a second, some decided; as the history has them."""
    rng = random.Random(0)
    for second in range(20):
        history.record_many(
            [
                seen(
                    i,
                    model=rng.choice(["part", "part", "lid"]),
                    name=rng.choice(["Ölwanne", "ölwanne_100%", "lid_a", "LIDxA"]) + f" {i}.png",
                    verdict=rng.choice(["normal", "anomalous", "no threshold"]),
                )
                for i in range(3 * second, 3 * second + 3)
            ]
        )
    frozen, clock.step = clock.step, timedelta(0)
    for number in range(1, 61, 4):
        made = decide(history, number, rng.choice(["normal", "defect"]))
        if rng.random() < 0.3:
            history.undo(made.id, "ben")
    clock.step = frozen
    return [history.get(number) for number in range(1, 61)]


def wanted_of(everything: list[Inspection], wanted: Filter) -> list[int]:
    """The oracle: the numbers a filter lets through, in order."""

    def fits(one: Inspection) -> bool:
        kind = "none" if one.decision is None else one.decision.kind
        return (
            wanted.model in (None, one.seen.model)
            and wanted.verdict in (None, one.seen.verdict)
            and wanted.decision in (None, kind)
            and (wanted.since is None or one.at >= wanted.since)
            and (wanted.until is None or one.at < wanted.until)
            and (wanted.score_min is None or one.seen.score >= wanted.score_min)
            and (wanted.score_max is None or one.seen.score <= wanted.score_max)
            and (wanted.text or "").casefold() in one.seen.name.casefold()
        )

    found = sorted((one for one in everything if fits(one)), key=lambda one: (one.at, one.id))
    return [one.id for one in (reversed(found) if wanted.newest_first else found)]


def all_pages(history, wanted: Filter) -> list[Inspection]:
    found, cursor, total = [], None, None
    while True:
        page = history.find(replace(wanted, cursor=cursor))
        total = page.total if cursor is None else total
        assert (page.total is None) is (cursor is not None)
        assert len(page.items) <= wanted.limit
        found += page.items
        cursor = page.cursor
        if cursor is None:
            assert total == len(found)
            return found


FILTERS = [
    Filter(),
    Filter(newest_first=False),
    Filter(model="lid"),
    Filter(model="absent"),
    Filter(verdict="anomalous"),
    Filter(decision="normal"),
    Filter(decision="defect", newest_first=False),
    Filter(decision="none", model="part"),
    Filter(since=at(5), until=at(12)),
    Filter(since=at(5).astimezone(), newest_first=False),
    Filter(score_min=2.0, score_max=5.0),
    Filter(score_min=5.0, verdict="normal", model="part"),
    Filter(text="ÖLWANNE"),
    Filter(text="100%"),
    Filter(text="lid_a"),
    Filter(text="_"),
    Filter(text="\\"),
    Filter(text="' OR 1=1 --"),
    Filter(text="5", verdict="normal", decision="none", since=at(2), score_max=6.0),
]


@pytest.mark.parametrize("limit", [7, 50])
def test_filters_let_through_what_a_plain_list_does(history, filled, limit):
    for wanted in FILTERS:
        found = all_pages(history, replace(wanted, limit=limit))
        assert [one.id for one in found] == wanted_of(filled, wanted), wanted
        assert history.count(wanted) == len(found), wanted
        assert [filled[one.id - 1] for one in found] == found


def test_the_filters_of_the_test_tell_apart(history, filled):
    sizes = [len(wanted_of(filled, wanted)) for wanted in FILTERS]
    assert sizes.count(0) == 3
    assert len(set(sizes)) > 10


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_neither_repeat_nor_skip_while_inspections_arrive(history, clock, newest_first):
    clock.step = timedelta(0)  # many of the same time, across pages
    history.record_many([seen(i) for i in range(23)])
    found, cursor, index = [], None, 23
    while True:
        page = history.find(Filter(limit=4, cursor=cursor, newest_first=newest_first))
        found += [one.id for one in page.items]
        cursor = page.cursor
        if cursor is None or index > 60:
            break
        clock.at += timedelta(seconds=(index % 3) - 1)  # also when the clock is set back
        history.record_many([seen(index + i) for i in range(3)])
        index += 3
    assert len(found) == len(set(found))
    assert set(range(1, 24)) <= set(found)


def test_a_decision_between_two_pages_repeats_nothing(history):
    history.record_many([seen(i) for i in range(9)])
    first = history.find(Filter(decision="none", limit=3))
    decide(history, first.items[0])
    decide(history, 5)
    second = history.find(Filter(decision="none", limit=9, cursor=first.cursor))
    assert [one.id for one in second.items] == [6, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "5"},
        {"verdict": "bad"},
        {"decision": "maybe"},
        {"score_min": float("nan")},
        {"score_max": float("inf")},
        {"newest_first": "yes"},
        {"cursor": ""},
        {"cursor": "n1"},
        {"cursor": "o1.1"},
        {"cursor": "n1.1; DROP TABLE inspections"},
        {"cursor": "n" + "9" * 30 + ".1"},
        {"cursor": "n²3.1"},
    ],
)
def test_a_filter_that_breaks_a_rule_is_refused(history, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        history.find(Filter(**wrong))


def test_a_cursor_at_the_ends_of_time_is_harmless(history):
    history.record_many([seen(0)])
    ends = "9" * 18
    assert len(history.find(Filter(cursor=f"n{ends}.{ends}")).items) == 1
    assert history.find(Filter(cursor=f"n-{ends}.0")).items == ()


def test_text_of_any_kind_is_only_text(history):
    history.record_many([seen(0)])
    for text in ("\0", "\ud800", "%", "x" * 5000, "[", "*"):
        assert history.find(Filter(text=text)).total == (1 if text == "\0" else 0)


# ---------------------------------------------------------------- charts


def test_series_tell_what_numpy_tells(history, filled):
    buckets = history.series("part", at(3), at(15), 5)
    assert [bucket["from"] for bucket in buckets] == [at(3 + 2.4 * i) for i in range(5)]
    assert [bucket["to"] for bucket in buckets] == [at(5.4 + 2.4 * i) for i in range(5)]
    inside = [one for one in filled if one.seen.model == "part" and at(3) <= one.at < at(15)]
    highest = max(one.seen.score for one in inside)
    for bucket in buckets:
        own = [one.seen for one in inside if bucket["from"] <= one.at < bucket["to"]]
        scores = np.array([one.score for one in own])
        assert bucket["count"] == len(own) > 0
        assert bucket["anomalous"] == sum(one.verdict == "anomalous" for one in own)
        assert bucket["quantiles"]["0.5"] == pytest.approx(np.median(scores))
        assert bucket["quantiles"]["0.95"] == pytest.approx(np.quantile(scores, 0.95))
        edges = bucket["histogram"]["edges"]
        assert (edges[0], edges[-1]) == (0.0, highest)
        assert bucket["histogram"]["counts"] == np.histogram(scores, edges)[0].tolist()
        assert sum(bucket["histogram"]["counts"]) == len(own)
        assert bucket["nearest_distance"] == pytest.approx(0.25)
    assert sum(bucket["count"] for bucket in buckets) == len(inside)


def test_series_of_all_time_hold_everything(history, filled):
    buckets = history.series("lid")
    assert len(buckets) == 48
    assert sum(bucket["count"] for bucket in buckets) == sum(one.seen.model == "lid" for one in filled)
    assert buckets[0]["count"] > 0


def test_series_of_nothing(history, clock):
    assert history.series("part") == []
    history.record_many([seen(0, nearest_distance=None, score=-3.0, verdict="no threshold")])
    assert history.series("part", until=START) == []
    empty, full = history.series("part", at(-10), at(10), 2)
    assert (empty["count"], empty["quantiles"], empty["nearest_distance"]) == (0, None, None)
    assert (full["count"], full["quantiles"]["0.5"], full["nearest_distance"]) == (1, -3.0, None)
    assert sum(full["histogram"]["counts"]) == 1
    for wrong in ({"since": at(2), "until": at(1)}, {"buckets": 0}, {"buckets": 1001}):
        with pytest.raises(InputError):
            history.series("part", **wrong)


def test_scores_of_the_latest_come_newest_first(history, filled):
    expected = [one.seen.score for one in reversed(filled) if one.seen.model == "part"]
    assert history.shares("part") == expected
    assert history.shares("part", 7) == expected[:7]
    assert history.shares("absent") == []
    with pytest.raises(InputError, match="last"):
        history.shares("part", 0)


# ---------------------------------------------------------------- damaged rows

DAMAGES = [
    "UPDATE inspections SET regions = '[{\"box\": [1,'",
    "UPDATE inspections SET regions = '[NaN]'",
    "UPDATE inspections SET nearest = '7'",
    "UPDATE inspections SET timings = ''",
    "UPDATE inspections SET at = 4000000000000000000",
    "UPDATE inspections SET at = -4000000000000000000",
    "UPDATE inspections SET score = 9e999",
    "UPDATE inspections SET files_removed_at = 4000000000000000000",
]


def run(history, statement: str) -> None:
    with history.database.writing() as connection:
        connection.exec_driver_sql(statement.replace("9e999", "9e999" if history.database.is_sqlite else "'Infinity'"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_costs_its_neighbours_nothing(history, damage, caplog):
    history.record_many([seen(i) for i in range(9)])
    run(history, f"{damage} WHERE id = 5")
    others = {1, 2, 3, 4, 6, 7, 8, 9}
    for newest_first in (True, False):
        for limit in (1, 2, 3, 50):
            found, cursor, pages = [], None, 0
            while pages == 0 or cursor is not None:
                page = history.find(Filter(newest_first=newest_first, limit=limit, cursor=cursor))
                found += [one.id for one in page.items]
                cursor, pages = page.cursor, pages + 1
                assert pages < 20
            assert sorted(found) == sorted(others)
    assert [one.id for one in history.after(3)] == [4, 6, 7, 8, 9]
    assert history.get(5) is None
    assert [one.id for one in history.record_many([seen(20)])] == [10]
    assert "inspections 5 cannot be read" in caplog.text


def test_a_damaged_change_or_decision_costs_its_neighbours_nothing(history):
    history.record_many([seen(1)])
    for index in range(5):
        history.change(NewChange("part", "ann", "append", "a" * 64, "b" * 64, (f"{index}" * 64,)))
        decide(history, 1, "normal")
    run(history, "UPDATE model_changes SET detail = '{' WHERE id = 3")
    run(history, "UPDATE decisions SET at = 4000000000000000000 WHERE id = 3")
    found, cursor = [], None
    while not found or cursor is not None:
        page = history.changes("part", cursor, 1)
        found += [change.id for change in page.items]
        cursor = page.cursor
        assert len(found) < 9
    assert found == [5, 4, 2, 1]
    assert [one.id for one in history.decisions(1)] == [1, 2, 4, 5]
    assert [one.id for one in history.unfinished("part")] == [1, 2, 4, 5]


def test_a_cursor_beyond_what_a_database_can_count_is_refused(history):
    for cursor in ("n9999999999999999999.1", "n-9999999999999999999.1", "n1.9999999999999999999", "n\u0661.1"):
        with pytest.raises(InputError, match="is not one that this list gave out"):
            history.find(Filter(cursor=cursor))
