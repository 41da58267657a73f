"""What a layout is, and the few ways in which readers look at folders.

Pictures are taken by their exact suffix (in any letter case), never by a pattern; hidden files and other files are passed over.
Parts of a path are compared as parts: a folder is called "good", a path never merely contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spadework.datasets.sample import Category
from spadework.errors import DatasetError
from spadework.images import IMAGE_SUFFIXES

SPLIT_SEED = 0


@dataclass(frozen=True)
class Layout:
    """A way to lay out a data set in folders.

    name: what `open_dataset(layout=...)` and the command line call it. title: one line for people.
    tree: the expected files, drawn; shown where a folder is refused. detect: whether a folder looks like it.
    read: the categories of such a folder; raises DatasetError where they are incomplete.
    """

    name: str
    title: str
    tree: str
    detect: Callable[[Path], bool]
    read: Callable[[Path], Sequence[Category]]


def list_folder(folder: Path) -> list[Path]:
    """Entries of a folder by name, hidden ones left out.

    Raises:
        DatasetError: the folder cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(
            f"{folder}: the folder cannot be read: {reason}. Check the path and its permissions."
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in `folder`, by name; none where it does not exist."""
    return [entry for entry in list_folder(folder) if entry.is_dir()] if folder.is_dir() else []


def pictures_in(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Pictures directly in `folder`, by name; none where it does not exist. `suffixes`: lower case, with the dot."""
    if not folder.is_dir():
        return []
    wanted = frozenset(suffixes)
    return [entry for entry in list_folder(folder) if entry.suffix.lower() in wanted and entry.is_file()]


def need_pictures(folder: Path) -> list[Path]:
    """Pictures directly in `folder`.

    Raises:
        DatasetError: there are none.
    """
    pictures = pictures_in(folder)
    if not pictures:
        raise DatasetError(
            f"{folder}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}).\nFound:\n{found(folder)}"
        )
    return pictures


def match_mask(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file called one of `names`, exactly, in the first of `folders` that has one."""
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def need_mask(picture: Path, folders: Sequence[Path], names: Sequence[str]) -> Path:
    """The mask of `picture`.

    Raises:
        DatasetError: there is none; the message says which names were looked for.
    """
    mask = match_mask(folders, names)
    if mask is None:
        where = " or ".join(str(folder) for folder in folders)
        raise DatasetError(
            f"{picture} has no mask: expected {' or '.join(names)} in {where}. Add it, or remove all masks."
        )
    return mask


def hold_out(pictures: Sequence[Path], *, share: float = 0.2) -> tuple[list[Path], list[Path]]:
    """Split normal pictures into (train, test) where a layout has no split of its own.

    `share` of them, rounded down but at least one of two or more, go to the test. Which ones is drawn with the fixed seed
    `SPLIT_SEED` over the pictures in the order of their names, so that the same files always give the same split.
    """
    ordered = sorted(pictures, key=lambda path: path.name)
    n_test = max(int(len(ordered) * share), 1) if len(ordered) > 1 else 0
    chosen = set(np.random.default_rng(SPLIT_SEED).permutation(len(ordered))[:n_test].tolist())
    train = [path for index, path in enumerate(ordered) if index not in chosen]
    return train, [ordered[index] for index in sorted(chosen)]


def found(root: Path, *, limit: int = 8) -> str:
    """Draw what is in a folder, two levels deep and at most `limit` entries each, for the text of a refusal."""
    lines: list[str] = []
    entries = [] if not root.is_dir() else list_folder(root)
    for entry in entries[:limit]:
        lines.append(f"  {_describe(entry)}")
        inner = subfolders(entry)
        lines += [f"    {_describe(path)}" for path in inner[:limit]]
        lines += [f"    ... and {len(inner) - limit} more folders"] if len(inner) > limit else []
    lines += [f"  ... and {len(entries) - limit} more"] if len(entries) > limit else []
    return "\n".join(lines) or "  (nothing)"


def _describe(entry: Path) -> str:
    if not entry.is_dir():
        return entry.name
    n_pictures = len(pictures_in(entry))
    n_folders = len(subfolders(entry))
    return f"{entry.name}/  ({n_pictures} pictures, {n_folders} folders)"
