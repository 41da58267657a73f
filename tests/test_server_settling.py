"""No row without its picture: what is on its way to the disk is waited for, failures are told, and nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("fastapi")
from spadework.server.settling import Settling


def test_a_row_waits_for_its_picture():
    settling, done = Settling(), []
    with settling.picture("a") as settled, settling.picture("b"):
        waiter = threading.Thread(target=lambda: done.append(settling.wait({"a"})))
        waiter.start()
        waiter.join(0.05)
        assert not done
        settled.set_result(None)
        waiter.join(5)
        assert done
    settling.wait({"a", "b", "c"})  # nothing is under way


def test_the_same_picture_twice_is_waited_for_twice():
    settling, done = Settling(), []
    with settling.picture("a") as first, settling.picture("a") as second:
        first.set_result(None)
        waiter = threading.Thread(target=lambda: done.append(settling.wait({"a"})))
        waiter.start()
        waiter.join(0.05)
        assert not done
        second.set_result(None)
        waiter.join(5)
        assert done


def test_a_picture_that_cannot_be_kept_has_no_row():
    settling = Settling()
    with settling.picture("a") as settled:
        settled.set_exception(OSError("no room"))
        with pytest.raises(OSError, match="no room"):
            settling.wait({"a"})


def test_nobody_waits_for_one_that_was_given_up():
    settling, done = Settling(), []
    with settling.picture("a"):
        waiter = threading.Thread(target=lambda: done.append(settling.wait({"a"})))
        waiter.start()
        waiter.join(0.05)
    waiter.join(5)
    assert done
    assert not settling._under_way
