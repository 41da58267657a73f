"""The core that a thread runs on, where the system tells and lets one choose: Linux.

The kernel wakes a thread where it ran last unless it finds an idle core. In a virtual machine it takes a core that the host has put to sleep for a
busy one. So when the thread that runs a forward pass comes to stand on the core where the network's own second thread stood, both
share that core, the other one sleeps, and it stays so picture after picture: on two cores a pass takes 9.7 ms instead of 5.5 (128 x 128
pixels; passes of 20 ms and more are put right by the kernel's own balancing). Which of the two a process had was luck.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence

TASKS = "/proc/self/task"
CORE = 36  # of the fields behind the name in `stat`


def threads_here() -> set[int]:
    """Return the system's numbers of this process's threads; none where it does not tell."""
    try:
        return {int(name) for name in os.listdir(TASKS)}
    except OSError:
        return set()


def stand_apart(threads: Sequence[int]) -> None:
    """Move the calling thread off the core where one of these ran last, if another core is free of them. What it may run on stays as it is."""
    if not threads:
        return
    taken = {_core_of(thread) for thread in threads} - {None}
    if _core_of(threading.get_native_id()) not in taken:
        return
    with contextlib.suppress(OSError, AttributeError):  # another system: nothing depends on it
        allowed = os.sched_getaffinity(0)
        if allowed - taken:
            try:
                os.sched_setaffinity(0, allowed - taken)
            finally:
                os.sched_setaffinity(0, allowed)


def _core_of(thread: int) -> int | None:
    """Where a thread ran last; None of one that is no more, or where the system does not tell."""
    try:
        with open(f"{TASKS}/{thread}/stat", "rb", buffering=0) as file:
            return int(file.read().rpartition(b")")[2].split()[CORE])
    except (OSError, ValueError, IndexError):
        return None
