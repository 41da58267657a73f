"""Detectors that end badly, each in its own way, and one without a map: for the tests of whatever must live with them.

`python -c CHILD` does a run as `spadework.workers` does, with these in the registry.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from spadework.detectors.spade import Spade
from spadework.errors import MissingExtraError
from spadework.prediction import Judgement

CHILD = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import faulty_detectors
from spadework import workers
from spadework.detectors import DETECTORS
DETECTORS.update(faulty_detectors.NAMES)
workers.main(sys.argv[1])
"""


class Faulty(Spade):
    name = "faulty"

    def _learn(self, normal, folder):
        raise ValueError("operands could not be broadcast together")


class Killed(Spade):
    name = "killed"

    def _learn(self, normal, folder):
        os.kill(os.getpid(), signal.SIGKILL)


class Exiting(Spade):
    name = "exiting"

    def _learn(self, normal, folder):
        sys.stderr.write("the library gave up\n")
        sys.stderr.flush()
        os._exit(3)


class Exhausted(Spade):
    name = "exhausted"

    def _learn(self, normal, folder):
        raise MemoryError


class Sleepy(Spade):
    name = "sleepy"

    def _learn(self, normal, folder):
        time.sleep(600)


class Hungry(Spade):
    """Takes 300 MiB more than others for a while."""

    name = "hungry"

    def _learn(self, normal, folder):
        full = np.ones(300 * 2**20, np.uint8)
        time.sleep(3.0)
        super()._learn(normal, folder)
        del full


class Verdict(Spade):
    """Image level only."""

    name = "verdict"
    localises = False
    cannot = "maps"

    def _judge(self, seen):
        return Judgement(None, float(seen.view.mean()))

    def _normal_scores(self, progress):
        return np.empty(0), np.empty(0)


def __getattr__(name: str) -> object:
    if name == "Absent":
        raise MissingExtraError("detector 'absent'", "torch")
    raise AttributeError(name)


NAMES = {name: f"faulty_detectors:{name.title()}" for name in (
    "faulty", "killed", "exiting", "exhausted", "sleepy", "hungry", "verdict", "absent",
)}  # fmt: skip
