"""Pictures on their way to a detector: decoded ahead in threads while the network and the search run.

In: paths and arrays. Out: each picture as it came and as the network sees it, in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spadework.errors import ImageError, InputError
from spadework.images import Picture, View, gather, load, picture_size, pixel_hash
from spadework.pyramid import Pyramid

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_AHEAD = 3  # pictures decoded while the network runs
AHEAD = 4  # normal pictures that have passed the network and wait: it goes on while axes are learnt, or one is written
PIXELS_AHEAD = 64_000_000  # of all pictures that are decoded at once, where one is not larger by itself: 192 MB
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


@lru_cache(maxsize=64)
def _file_pixels(path: str) -> int:
    height, width = picture_size(path) or (0, 0)
    return height * width


def pixels_of(picture: Picture) -> int:
    """Return how many pixels a picture has, from its file's header; 0 where that cannot be read."""
    if isinstance(picture, np.ndarray):
        return picture.shape[0] * picture.shape[1] if picture.ndim > 1 else 0
    return _file_pixels(os.fspath(picture))


Decoded = Future[tuple[np.ndarray, np.ndarray]]  # a picture as it was read, and as the network sees it


def read_ahead(
    pictures: list[Picture], view: View, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Picture, Decoded]]:
    """Yield, in order, each picture's name, the picture as it came, and its pixels, decoded a few ahead in threads."""

    def decode(picture: Picture, name: str) -> tuple[np.ndarray, np.ndarray]:
        image = load(picture, name=name)
        try:
            return image, view.see(image)
        except (ValueError, ArithmeticError) as error:
            raise ImageError(f"{name}: cannot be brought to the network's size: {error}") from error

    with _pool(2 if len(pictures) > 1 else 0, "spadework-read") as pool:
        waiting: deque[tuple[str, Picture, Decoded]] = deque()
        try:
            for index, picture in enumerate(pictures):
                name = picture_name(picture, index) if names is None else names[index]
                while waiting and pixels_of(picture) + sum(pixels_of(each[1]) for each in waiting) > PIXELS_AHEAD:
                    yield waiting.popleft()
                waiting.append((name, picture, pool.submit(decode, picture, name)))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        except BaseException:  # the caller left early: what nobody waits for is not decoded
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def work_ahead(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    threads: int,
    ahead: int = 0,
    weight: Callable[[Item], int] = lambda _: 0,
    most: int = 0,
) -> Iterator[Result]:
    """Yield `work` of each item, in order; while the caller is busy with one, the next are under way in so many threads.

    Args:
        items: what to work on.
        work: done in a thread.
        threads: how many; with 0 each item is worked on where and when it is asked for.
        ahead: so many more may be begun, and wait to be yielded, where the caller is busy for long.
        weight: of an item; those under way at once weigh no more than `most` together, but for the last of them.
        most: see there.
    """
    with _pool(threads, "spadework-network") as pool:
        running: deque[tuple[Future[Result], int]] = deque()
        try:
            for item in items:
                running.append((pool.submit(work, item), weight(item)))
                while len(running) > threads + ahead or (running and sum(own for _, own in running) > most):
                    yield running.popleft()[0].result()
            while running:
                yield running.popleft()[0].result()
        except BaseException:  # the caller left early, or one failed: what nobody waits for is not begun
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Here(Executor):
    """Does what it is given at once, in the thread that gives it.

    Of a lone picture nothing can be done ahead. A forward pass in a thread of its own finds itself, every other time, on the core that the
    network's own second thread woke up on, and takes 9.8 ms instead of 5.6 (128 x 128 pixels, two cores of a virtual machine).
    """

    def submit(self, work: Callable[..., Result], /, *args: Any, **options: Any) -> Future[Result]:
        done: Future[Result] = Future()
        try:
            done.set_result(work(*args, **options))
        except BaseException as error:
            done.set_exception(error)
        return done


def _pool(threads: int, name: str) -> Executor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name) if threads else _Here()


def see_ahead(
    decoded: Iterable[tuple[str, Picture, Decoded]],
    see: Callable[[str, Picture, Decoded], Result],
    *,
    threads: int,
    ahead: int,
) -> Iterator[Result]:
    """`work_ahead` of pictures from `read_ahead`, so few at once that their pixels stay within PIXELS_AHEAD."""
    return work_ahead(
        decoded,
        lambda item: see(*item),
        threads=threads,
        ahead=ahead,
        weight=lambda item: pixels_of(item[1]),
        most=PIXELS_AHEAD,
    )


def in_background(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield the items; while the caller is busy with one, the next is made in a thread. An error comes where its item would."""
    source = iter(items)

    def step() -> list[Item]:
        return list(islice(source, 1))

    with ThreadPoolExecutor(1, thread_name_prefix="spadework-inspect") as pool:  # `source` runs in this thread alone
        running = pool.submit(step)
        while found := running.result():
            running = pool.submit(step)
            yield found[0]
