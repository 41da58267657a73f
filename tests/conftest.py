"""Shared fixtures: a fitted tiny model, which no test may change, and a copy on disk that a test may."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

# Before anything loads NumPy, and for every child. Two workers share two cores: threads of the linear algebra that wait, spinning, for a core
# that the other worker has cost a tenth of the suite. test_blas_threads.py runs what promises the same bytes with two of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from builders import tiny_model

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs so, and what is started from there inherits it: tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("SPADEWORK_THREADS", "2")


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks():
    """Flushing to disk matters when the power goes; a test can only see that it is asked for, and in which order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def model():
    """Fitted on `normal_pictures(6)`; shared, so only to be read."""
    return tiny_model()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    """The folder of a copy of `model`, for this test alone."""
    return model.save(tmp_path / "part.spade")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """An own place for temporary files, so that a test can see what is left behind in it."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are not wanted, files of nothing else are not even imported."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return True if "\npytestmark = pytest.mark.slow" in collection_path.read_text(encoding="utf-8") else None
