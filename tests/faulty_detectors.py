"""Detectors that end badly, each in its own way, for the tests of whatever must survive them."""

from __future__ import annotations

from spadework.errors import MissingExtraError


def __getattr__(name: str) -> object:
    if name == "Absent":
        raise MissingExtraError("detector 'absent'", "torch")
    raise AttributeError(name)
