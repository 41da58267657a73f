"""What can go wrong in the station, without a word of HTTP. Each has a `code` for programs; the message is for people.

SpadeworkError
└── StationError
    ├── DecodingError           a file cannot be inspected
    │   ├── NotAPicture         it is none of the formats that are taken
    │   ├── TooLarge            it has too many pixels, or takes too much memory
    │   ├── Damaged             it is cut off or broken
    │   └── DecodeTimeout       it takes too long
    ├── Overloaded              too many pictures wait already, or none can be decoded now
    ├── Stopped                 the station takes nothing new
    ├── ModelGone               the model on the disk cannot be used
    ├── CannotLearn             the detector cannot take single pictures in or out
    ├── NotFound                no such inspection, decision or normal picture
    ├── PictureGone             its files were cleaned away
    └── Conflict                what was asked for does not fit what is there
"""

# The names are those of what happened, as an operator reads them.
# ruff: noqa: N818

from __future__ import annotations

from typing import ClassVar

from spadework.errors import SpadeworkError


class StationError(SpadeworkError):
    """Base of what the station refuses or fails at."""

    code: ClassVar[str] = "station"


class DecodingError(StationError):
    """A file cannot be inspected."""

    code: ClassVar[str] = "decoding"


class NotAPicture(DecodingError):
    """A file is in none of the formats that are taken, whatever its name says."""

    code: ClassVar[str] = "not_a_picture"


class TooLarge(DecodingError):
    """A picture has too many pixels, or takes more memory to decode than it may."""

    code: ClassVar[str] = "too_large"


class Damaged(DecodingError):
    """A picture is cut off or broken."""

    code: ClassVar[str] = "damaged"


class DecodeTimeout(DecodingError):
    """A picture takes longer to decode than it may."""

    code: ClassVar[str] = "decode_timeout"


class Overloaded(StationError):
    """Too many pictures wait already, or nothing can be started to decode them; `seconds`: about how long until there is room."""

    code: ClassVar[str] = "overloaded"

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class Stopped(StationError):
    """The station takes nothing new."""

    code: ClassVar[str] = "stopped"


class ModelGone(StationError):
    """The model on the disk cannot be used: deleted, damaged, or being written to by somebody else."""

    code: ClassVar[str] = "model_gone"


class CannotLearn(StationError):
    """The model's detector cannot take single pictures in or out."""

    code: ClassVar[str] = "cannot_learn"


class NotFound(StationError):
    """There is no such inspection, decision or normal picture."""

    code: ClassVar[str] = "not_found"


class PictureGone(StationError):
    """The files of an inspection were cleaned away."""

    code: ClassVar[str] = "picture_gone"


class Conflict(StationError):
    """What was asked for does not fit what is there."""

    code: ClassVar[str] = "conflict"
