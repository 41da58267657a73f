"""What promises the same bytes, with two threads of the linear algebra: conftest.py gives the rest of the suite one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
METHODS = (
    "spade or patchcore or padim or nearest-image or texture-inspection or test_remove"  # those that multiply matrices
)
CONTRACT = (
    "a_second_fit_is_a_fresh_fit",
    "equal_seeds_give_equal_models",
    "the_order_of_normal_pictures_does_not_matter",
    "paths_and_arrays_give_the_same",
    "a_batch_of_one_equals_a_batch_of_many",
    "the_order_of_a_batch_does_not_matter",
    "predicting_changes_nothing",
    "kinds_of_arrays_give_the_same_answer",
    "saved_and_loaded_is_the_same",
    "fitting_onto_a_path_is_fitting_and_saving",
)


@pytest.mark.slow
def test_the_same_bytes_with_two_threads_of_the_linear_algebra(tmp_path):
    chosen = [f"{HERE / 'test_detectors.py'}::test_{name}" for name in CONTRACT]
    chosen += [f"{HERE / 'test_remove.py'}::test_removing_is_fitting_on_the_rest"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", METHODS]
    done = subprocess.run(
        [*command, "--basetemp", tmp_path / "inner", *chosen],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
        cwd=HERE.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
