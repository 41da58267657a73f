"""Threads that share work: each share once, the caller among them, and errors come back."""

from __future__ import annotations

import os
import threading
import time

import pytest

from spadework.backbones import apart
from spadework.kernels.team import ALONE, Team, joined


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_share_is_done_once_and_the_first_by_the_caller(threads):
    done = {}
    with Team(threads) as team:
        for _ in range(3):
            done.clear()
            team.share(lambda share: done.update({share: threading.get_ident()}))
            assert sorted(done) == list(range(threads))
            assert done[0] == threading.get_ident()
            assert threading.get_ident() not in [done[share] for share in range(1, threads)]


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_comes_back_when_all_are_done(fails):
    ended = []

    def work(share):
        if share == fails:
            raise ValueError(f"share {share}")
        time.sleep(0.05)
        ended.append(share)

    with Team(2) as team, pytest.raises(ValueError, match=f"share {fails}"):
        team.share(work)
    assert ended == [1 - fails]


@pytest.mark.parametrize("team", [ALONE, Team(2)])
def test_what_is_begun_gives_its_result_or_its_error(team):
    with team:
        assert team.begin(lambda: 7).result(10) == 7
        failed = team.begin(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            failed.result(10)


def test_a_team_that_is_there_is_joined():
    with Team(3) as team, joined(team, 5) as found:
        assert found is team
    with joined(None, 2) as found:
        assert found.threads == 2


# ---------------------------------------------------------------- cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a thread choose its core")
def test_a_thread_leaves_the_core_of_another_and_may_still_run_on_all():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core")
    core, waits = min(allowed), threading.Event()
    numbers = []

    def other():
        os.sched_setaffinity(0, {core})  # of this thread alone
        numbers.append(threading.get_native_id())
        waits.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    while not numbers:
        time.sleep(0.001)
    os.sched_setaffinity(0, {core})
    os.sched_setaffinity(0, allowed)  # stays where it is
    assert apart._core_of(threading.get_native_id()) == core
    apart.stand_apart(numbers)
    left = apart._core_of(threading.get_native_id()) != core
    waits.set()
    thread.join()
    assert left
    assert os.sched_getaffinity(0) == allowed


def test_standing_apart_of_nobody_or_of_a_thread_that_is_gone_does_nothing(monkeypatch):
    apart.stand_apart([])
    apart.stand_apart([2**22 + 1])
    monkeypatch.setattr(apart, "TASKS", "/nowhere")
    assert apart.threads_here() == set()
    apart.stand_apart([1])
