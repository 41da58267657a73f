"""Threads that share the work of one search, the thread that asks for it among them.

A thread that only waits is woken on whatever core is at hand, in a virtual machine often on the one where the network's second thread waits:
the next forward pass then has one core to itself and takes 9.8 ms instead of 5.6 (128 x 128 pixels, two cores). A thread that works stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Self, TypeVar

Result = TypeVar("Result")


class Team:
    """The caller and `threads` - 1 others, which live as long as the `with` block."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1, thread_name_prefix="spadework-search") if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._others is not None:
            self._others.shutdown()

    def begin(self, work: Callable[[], Result]) -> Future[Result]:
        """Do some work in one of the others, if there are any, and return at once."""
        if self._others is not None:
            return self._others.submit(work)
        done: Future[Result] = Future()
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        return done

    def share(self, work: Callable[[int], None]) -> None:
        """Do `work(0)` here and `work(1)` to `work(threads - 1)` in the others; return when all are done. Raises what one of them raised."""
        if self._others is None:
            work(0)
            return
        begun = [self._others.submit(work, share) for share in range(1, self.threads)]
        try:
            work(0)
        finally:
            wait(begun)
        for each in begun:
            each.result()


ALONE = Team()


@contextmanager
def joined(team: Team | None, threads: int) -> Iterator[Team]:
    """Yield a team that is there, or for a while one of so many threads."""
    if team is not None:
        yield team
        return
    with Team(threads) as own:
        yield own
