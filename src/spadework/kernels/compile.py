"""How inner loops are compiled: by Numba, when the module that holds them is imported, and cached on disk.

Signatures are fixed, so that nothing is compiled later: whoever wants no wait in a first request imports those modules beforehand
(`pruned.warm_up`). Memory maps and arrays of several images are handed over as addresses; the caller keeps them alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: str, *, reorder: bool = False) -> Callable[[Function], Function]:
    """Compile for one signature, without the interpreter's lock, cached on disk where that is possible.

    `reorder` lets sums be taken in any order, which vector instructions need.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    if reorder:
        options["fastmath"] = {"contract", "reassoc", "nsz"}

    def wrap(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(signature, cache=True, **options)(function))
        except RuntimeError:  # no place for a cache: an install that nobody may write to, a user without a home
            return cast(Function, numba.njit(signature, **options)(function))

    return wrap
