"""The error tree. Every message names the thing, the rule, the value that came, and what to do next.

SpadeworkError
├── InputError (ValueError)          an argument or a picture breaks a rule
│   ├── ImageError                   one picture cannot be used; `path` says which
│   └── DatasetError                 a folder is not a data set of a known layout
├── ModelError                       a model file is damaged, newer, or made for something else
├── BackboneError                    a network's weights are missing or do not fit
├── DamagedResultError               a file of results is cut off, edited or damaged
├── TrainingError                    a network cannot be trained with these settings on these pictures
├── OutputError (OSError)            a result cannot be written
│   └── NameTakenError               something else stands where one picture's results go
└── MissingExtraError (ImportError)  an optional part is not installed
"""

from __future__ import annotations

from pathlib import Path


class SpadeworkError(Exception):
    """Base of every error that a caller can cause; its text is complete without a traceback."""


class InputError(SpadeworkError, ValueError):
    """An argument breaks a rule."""


class ImageError(InputError):
    """One picture cannot be used. `path` is the file, or None for an array."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class DatasetError(InputError):
    """A folder is not a data set of a known layout, or its parts do not fit together."""


class ModelError(SpadeworkError):
    """A model on disk is damaged, of a newer version, or made for another detector or backbone."""


class BackboneError(SpadeworkError):
    """A network cannot be found, loaded or exported."""


class DamagedResultError(SpadeworkError):
    """A file in a folder of results cannot be used: cut off, edited, damaged, or of a newer version."""


class TrainingError(SpadeworkError):
    """A training came to no end: its loss is NaN or infinite."""


class OutputError(SpadeworkError, OSError):
    """A result cannot be written: no room, no permission, or something else is in the way."""


class NameTakenError(OutputError):
    """Results of one picture cannot be written: something else has their name, or it is too long."""


class MissingExtraError(SpadeworkError, ImportError):
    """An optional dependency is missing. The message holds the exact install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra!r}: install it with  pip install 'spadework[{extra}]'  (in a clone of the repository: pip install -e '.[{extra}]')"
        )
