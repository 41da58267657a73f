"""Checksums: those of zlib, with and without the library that makes them fast."""

from __future__ import annotations

import importlib
import sys
import zlib

import numpy as np
import pytest
from builders import rng_of

from spadework import checksums


@pytest.fixture(params=["fast", "plain"])
def module(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    yield importlib.reload(checksums)
    monkeypatch.undo()
    importlib.reload(checksums)


@pytest.mark.parametrize("length", [0, 1, 7, 4096, 262_145])
def test_it_is_the_one_of_zlib(module, length):
    data = rng_of("checksum", length).integers(0, 256, length).astype(np.uint8)
    start = zlib.crc32(b"before")
    assert module.crc32(data) == zlib.crc32(data)
    assert module.crc32(data.tobytes(), start) == module.crc32(memoryview(data), start) == zlib.crc32(data, start)


def test_the_fast_one_is_installed():
    pytest.importorskip("isal")
    assert checksums._crc32 is not zlib.crc32
