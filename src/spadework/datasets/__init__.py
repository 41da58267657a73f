"""Data sets: a folder in, categories of samples out, whatever layout the folder has.

`open_dataset` looks at what is there, picks the layout (`LAYOUTS`, tried in that order) and reads it; a folder that fits none
is refused with what was found and what each layout expects. `spadework.datasets.synthetic` renders a data set from nothing.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from spadework.datasets.category_trees import BTAD, MVTEC
from spadework.datasets.folder import FOLDER
from spadework.datasets.kolektorsdd2 import KOLEKTORSDD2
from spadework.datasets.layout import Layout, found
from spadework.datasets.magnetic_tile import MAGNETIC_TILE
from spadework.datasets.sample import Category, Dataset, Sample, check_category
from spadework.datasets.visa import VISA
from spadework.errors import DatasetError, InputError

__all__ = ["LAYOUTS", "Category", "Dataset", "Layout", "Sample", "detect_layout", "open_dataset"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (MVTEC, BTAD, VISA, MAGNETIC_TILE, KOLEKTORSDD2, FOLDER)
}


def open_dataset(root: str | os.PathLike[str], layout: str | None = None) -> Dataset:
    """Read the data set in the folder `root`.

    layout: a name in `LAYOUTS`, or None to find out. Only names and headers are read, no pictures (KolektorSDD2 alone needs its
    masks, which say what is normal). Samples come in the order of their folders' and files' names.

    Raises:
        DatasetError: the folder is missing, has no known layout, or is incomplete: a mask is missing or of another size.
        InputError: there is no layout of that name.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(
            f"{root}: {'is a file, not a folder' if root.exists() else 'no such folder'}. Check the path."
        )
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"layout: there is no {layout!r}; there are: {', '.join(LAYOUTS)}.")
    chosen = detect_layout(root) if layout is None else LAYOUTS[layout]
    if not chosen.detect(root):
        raise _refusal(root, f"is not laid out as {chosen.name}", [chosen])
    categories = tuple(chosen.read(root))
    for category in categories:
        check_category(category)
    return Dataset(chosen.name, root, categories)


def detect_layout(root: Path) -> Layout:
    """Return the first layout in `LAYOUTS` that the folder looks like.

    Raises:
        DatasetError: it looks like none; the message draws what was found and what each layout expects.
    """
    for layout in LAYOUTS.values():
        if layout.detect(root):
            return layout
    raise _refusal(root, "has no known layout", list(LAYOUTS.values()))


def _refusal(root: Path, why: str, layouts: list[Layout]) -> DatasetError:
    expected = "\n".join(
        f"  {layout.name}: {layout.title}\n{textwrap.indent(layout.tree, '      ')}" for layout in layouts
    )
    return DatasetError(f"{root} {why}.\nFound:\n{found(root)}\nExpected:\n{expected}")
