"""How inner loops are compiled: by Numba, when the module that holds them is imported, and cached on disk.

Numba looks only at the file of a function to tell whether its cached code is stale, but the code holds whatever was inlined from other
files. So a digest of all these files is part of each function's name, and with it of its cached file's.

Signatures are fixed, so that nothing is compiled later: whoever wants no wait in a first request imports those modules beforehand
(`pruned.warm_up`). Memory maps and arrays of several images are handed over as addresses; the caller keeps them alive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def digest_of(folder: Path) -> str:
    """Return eight hexadecimal digits that change with any Python file of a folder."""
    content = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()[:8]


SOURCES = digest_of(Path(__file__).parent)


def compiled(signature: str, *, reorder: bool = False) -> Callable[[Function], Function]:
    """Compile for one signature, without the interpreter's lock, cached on disk where that is possible.

    `reorder` lets sums be taken in any order, which vector instructions need.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    if reorder:
        options["fastmath"] = {"contract", "reassoc", "nsz"}

    def wrap(function: Function) -> Function:
        function.__qualname__ = f"{function.__qualname__}_{SOURCES}"
        try:
            return cast(Function, numba.njit(signature, cache=True, **options)(function))
        except (
            RuntimeError,
            OSError,
        ):  # no room, or no place for a cache: an install that nobody may write to, a user without a home
            return cast(Function, numba.njit(signature, **options)(function))

    return wrap
