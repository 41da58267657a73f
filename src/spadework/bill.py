"""The bill of work that is not done yet: how long it will take, how much memory and disk, and what to change if that is too much.

In: numbers, from `spadework.estimates`. Out: `Bill`, in words and as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONG = 600.0  # seconds from which on the bill says what to change
ROOM = 0.9  # of what is free may be asked for


@dataclass(frozen=True)
class Change:
    """What would lower the bill. why: "time", "memory" or "disk". settings: to change; empty for what is not a setting. words: what to do."""

    why: str
    settings: Mapping[str, Any]
    words: str
    seconds: float
    memory_mb: float
    disk_mb: float


@dataclass(frozen=True)
class Bill:
    """What will be needed. seconds: of each stage, by name. memory_mb: highest resident memory of all processes. disk_mb: most that is taken
    at a time. model_mb: what is left of it. free_memory_mb, free_disk_mb: what there is; None where the system does not tell. advice: what to change where
    something is too much. probe_seconds: how long it took to tell. normal, tests: pictures.
    unknown: methods that failed in their probe, and why.
    """

    stages: Mapping[str, float]
    memory_mb: float
    disk_mb: float
    model_mb: float
    normal: int
    tests: int = 0
    free_memory_mb: float | None = None
    free_disk_mb: float | None = None
    probe_seconds: float = 0.0
    advice: tuple[Change, ...] = field(default=())
    unknown: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """Seconds in all."""
        return sum(self.stages.values())

    @property
    def problems(self) -> tuple[str, ...]:
        """What is too much, of "time", "memory" and "disk"."""
        return tuple(
            name
            for name, wanted, most in (
                ("time", self.seconds, LONG),
                ("memory", self.memory_mb, None if self.free_memory_mb is None else ROOM * self.free_memory_mb),
                ("disk", self.disk_mb, None if self.free_disk_mb is None else ROOM * self.free_disk_mb),
            )
            if most is not None and wanted > most
        )

    def warnings(self) -> list[str]:
        """Return what is too much, and what to change, in sentences."""
        free = {"memory": self.free_memory_mb, "disk": self.free_disk_mb}
        lines = [f"not in this bill: {each}" for each in self.unknown]
        lines += [f"{name}: only {gigabytes(free[name] or 0.0)} is free" for name in self.problems if name in free]
        for each in self.advice:
            words = Bill({"": each.seconds}, each.memory_mb, each.disk_mb, 0.0, 0)
            lines.append(f"for less {each.why}: {each.words} ({words})")
        if "time" in self.problems and not self.advice:
            lines.append(
                "for less time: fewer pictures, or another method (`spadework detectors` tells what each costs)"
            )
        return lines

    def __str__(self) -> str:
        return f"about {duration(max(1.0, self.seconds))}, {gigabytes(self.memory_mb)} memory, {gigabytes(self.disk_mb)} disk"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        free = {"free_memory_mb": _rounded(self.free_memory_mb), "free_disk_mb": _rounded(self.free_disk_mb)}
        return {
            "seconds": round(self.seconds, 1),
            "peak_memory_mb": round(self.memory_mb, 1),
            "disk_mb": round(self.disk_mb, 1),
            "model_mb": round(self.model_mb, 1),
            "normal_images": self.normal,
            "test_images": self.tests,
            "stages": {name: round(seconds, 2) for name, seconds in self.stages.items()},
            **free,
            "too_much": list(self.problems),
            "advice": [
                {
                    "why": each.why,
                    "settings": dict(each.settings),
                    "what": each.words,
                    "seconds": round(each.seconds, 1),
                    "peak_memory_mb": round(each.memory_mb, 1),
                    "disk_mb": round(each.disk_mb, 1),
                }
                for each in self.advice
            ],
            "unknown": list(self.unknown),
            "probe_seconds": round(self.probe_seconds, 2),
        }


def gigabytes(megabytes: float) -> str:
    """Return MiB in words: "12 MB", "0.6 GB", "35 GB"."""
    if megabytes < 100:
        return f"{max(1.0, megabytes):.0f} MB"
    return f"{megabytes / 1024:.1f} GB" if megabytes < 10 * 1024 else f"{megabytes / 1024:.0f} GB"


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
