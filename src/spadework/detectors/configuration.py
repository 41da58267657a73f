"""What a detector can be set to: its constructor's arguments, the published configuration, and a smaller one for a first look."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np

from spadework.errors import InputError
from spadework.images import Picture


class Settings:
    """Settings are the constructor's arguments, stored as attributes of the same names."""

    name: ClassVar[str]
    QUICK: ClassVar[Mapping[str, Any]] = {}  # what `quick` changes: fewer steps, smaller pictures

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Return the published configuration; `changes` replace single settings."""
        return cls(**changes)

    @classmethod
    def quick(cls, **changes: Any) -> Self:
        """Return the default configuration scaled down as `QUICK` says, to be fitted in about a minute on two cores.

        What it answers shows that a method runs, not how good it is. `scale` says in every result that it was scaled down.
        """
        return cls(**{**cls.QUICK, **changes})

    @property
    def scale(self) -> str:
        """ "quick" where every setting that `QUICK` changes is changed towards its value, "full" otherwise, also for a method without `QUICK`."""
        parameters = inspect.signature(type(self).__init__).parameters
        scaled = self.QUICK and all(
            _is_towards(_plain(getattr(self, name)), _plain(value), _plain(parameters[name].default))
            for name, value in self.QUICK.items()
        )
        return "quick" if scaled else "full"

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Return the names of the constructor's arguments."""
        return _names(cls.__init__)

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {name: _plain(getattr(self, name)) for name in self.setting_names()}

    def _tune(
        self, pictures: list[Picture], minutes: float, progress: Callable[[str, int, int], None] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings that suit normal pictures best, where they are not as they should be, and what the header tells of it."""
        raise InputError(f"{self.name} cannot be tuned, only spade can: fit without tune.")

    def __repr__(self) -> str:
        defaults = {key: _plain(p.default) for key, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = ", ".join(f"{key}={value!r}" for key, value in self.settings().items() if defaults.get(key) != value)
        return f"{type(self).__name__}({changed})"


@cache
def _names(constructor: Callable[..., None]) -> tuple[str, ...]:
    """Asked for several times a picture: a signature takes a tenth of a millisecond."""
    return tuple(name for name in inspect.signature(constructor).parameters if name != "self")


def _is_towards(value: Any, quick: Any, default: Any) -> bool:
    """Whether a setting is the quick one, or a number on its side of the default: fewer still is scaled down as well."""
    numbers = all(isinstance(each, (int, float)) for each in (value, quick, default))
    return value == quick or (numbers and (value - default) * (quick - default) > 0)


def _plain(value: object) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (tuple, list, range)) else value
