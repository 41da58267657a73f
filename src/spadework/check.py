"""Validation at the public boundary: each function returns its argument in the form the code uses, or raises InputError."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from spadework.errors import InputError


def positive_int(value: object, name: str) -> int:
    """Return `value` as an int of at least 1."""
    return whole(value, name, least=1)


def whole(value: object, name: str, *, least: int = 0) -> int:
    """Return `value` as an int of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    number = int(value.__index__())
    if number < least:
        raise InputError(f"{name} must be at least {least}, not {number}.")
    return number


def share(value: object, name: str, *, zero: bool = False) -> float:
    """Return `value` as a float in (0, 1), or in [0, 1) with `zero`."""
    number = _float(value, name)
    if not (0.0 < number < 1.0 or (zero and number == 0.0)):
        raise InputError(f"{name} must lie between 0 and 1, not {number}: 0.01 means one in a hundred.")
    return number


def not_negative(value: object, name: str) -> float:
    """Return `value` as a finite float of at least 0."""
    number = _float(value, name)
    if not 0.0 <= number < float("inf"):
        raise InputError(f"{name} must be finite and at least 0, not {number}.")
    return number


def one_of(value: object, name: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(sorted(choices))}, not {value!r}.")
    return value


def path(value: object, name: str) -> Path:
    """Return `value` as a Path."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be a path, not {value!r}.")
    return Path(value)


def size(value: object, name: str) -> tuple[int, int]:
    """Return an int or a pair as (height, width), each at least 1."""
    if isinstance(value, (tuple, list, np.ndarray)):
        if len(value) != 2:
            raise InputError(f"{name} must be one number or (height, width), not {value!r}.")
        return positive_int(value[0], f"{name} height"), positive_int(value[1], f"{name} width")
    side = positive_int(value, name)
    return side, side


def existing(path: str | Path, name: str) -> Path:
    """Return `path` as a Path that exists."""
    found = Path(path)
    try:
        if found.exists():
            return found
    except OSError as error:
        raise InputError(f"{name} {str(path)!r} cannot be read: {error.strerror}. Check its permissions.") from error
    raise InputError(f"{name} {str(path)!r} does not exist. Check the spelling; relative paths start at {Path.cwd()}.")


def _float(value: object, name: str) -> float:
    if isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be a number, not {value!r}.")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, not {value!r}.") from error


def thread_count(threads: int | None) -> int | None:
    """Return how many threads to use: the argument, else the environment's SPADEWORK_THREADS, else None."""
    if threads is not None:
        return positive_int(threads, "threads")
    text = os.environ.get("SPADEWORK_THREADS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"SPADEWORK_THREADS must be a whole number above 0, not {text!r}; correct or unset it")
    return int(text)
