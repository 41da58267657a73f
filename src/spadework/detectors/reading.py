"""Pictures on their way to a detector: decoded ahead in threads while the network and the search run.

In: paths and arrays. Out: each picture as it came and as the network sees it, in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from spadework.errors import ImageError, InputError
from spadework.images import Picture, View, gather, load, pixel_hash
from spadework.pyramid import Pyramid

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_AHEAD = 4  # pictures decoded while the network runs
Progress = Callable[[str, int, int], None]  # what is done, how many are, how many there are


@dataclass(frozen=True)
class Seen:
    """A picture on its way to a detector. image: as it came, (H, W, 3) uint8. view: what is inspected of it. pyramid: its features."""

    name: str
    image: np.ndarray
    view: np.ndarray
    pyramid: Pyramid | None

    @cached_property
    def pixel_hash(self) -> str:
        """What tells the picture from all others."""
        return pixel_hash(self.image)


def gather_normal(images: Picture | Iterable[Picture]) -> list[Picture]:
    """As `gather`, for learning: the folder of a whole data set is refused, for its defects and masks would be learnt as normal.

    Raises:
        InputError: as `gather`, or such a folder; the message names what to give instead.
    """
    if isinstance(images, Iterable) and not isinstance(images, (str, np.ndarray)):
        images = list(images)  # looked at twice
    for item in images if isinstance(images, list) else [images]:
        if isinstance(item, (str, os.PathLike)) and Path(item).is_dir():
            _refuse_dataset(Path(item))
    return gather(images)


def _refuse_dataset(folder: Path) -> None:
    from spadework.datasets import LAYOUTS  # only learning needs it

    for layout in LAYOUTS.values():
        if layout.detect(folder) and not _is_plain(folder, layout.name):
            usual = ("train/good", "train/ok", "good", "MT_Free/Imgs")
            normal = next((folder / name for name in usual if (folder / name).is_dir()), "a folder of normal pictures")
            raise InputError(
                f"{folder}: is laid out as a data set ({layout.title}); its defects would be learnt as normal. "
                f"Learn from {normal}, or measure on all of it with `spadework benchmark {folder}`."
            )


def _is_plain(folder: Path, layout: str) -> bool:
    """Whether a folder `good` stands alone, with no defects beside it."""
    return layout == "folder" and sum(entry.is_dir() for entry in folder.iterdir()) == 1


def picture_name(picture: Picture, index: int) -> str:
    """Return what messages and explanations call a picture."""
    return f"array {index}" if isinstance(picture, np.ndarray) else os.fspath(picture)


def read_ahead(
    pictures: list[Picture], names: list[str], view: View
) -> Iterator[Future[tuple[np.ndarray, np.ndarray]]]:
    """Yield, in order, each picture as it came and as the network sees it, decoded a few ahead in threads."""

    def decode(picture: Picture, name: str) -> tuple[np.ndarray, np.ndarray]:
        image = load(picture, name=name)
        try:
            return image, view.see(image)
        except (ValueError, ArithmeticError) as error:
            raise ImageError(f"{name}: cannot be brought to the network's size: {error}") from error

    with ThreadPoolExecutor(2, thread_name_prefix="spadework-read") as pool:
        waiting: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        try:
            for picture, name in zip(pictures, names, strict=True):
                waiting.append(pool.submit(decode, picture, name))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        except BaseException:  # the caller left early: what nobody waits for is not decoded
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def one_ahead(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """Yield `work` of each item, in order; the next one is under way in a thread while the caller is busy with the last."""
    with ThreadPoolExecutor(1, thread_name_prefix="spadework-network") as pool:
        running: Future[Result] | None = None
        for item in items:
            started = pool.submit(work, item)
            if running is not None:
                yield running.result()
            running = started
        if running is not None:
            yield running.result()
