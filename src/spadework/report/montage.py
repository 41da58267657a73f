"""One picture that explains a verdict: the part with its suspicious places, each beside the normal place it was compared with."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from spadework.detectors.spade import Explanation
from spadework.images import shrink

PICTURE_SIDE = 640
PATCH = 200
GAP = 12
LINE = 22
PAPER, INK, MARK = (255, 255, 255), (30, 30, 30), (255, 64, 0)


def montage(picture: np.ndarray, matches: Sequence[Explanation]) -> np.ndarray:
    """Draw a picture with numbered places, and a row for each: the place, and the normal place it was matched with.

    Args:
        picture: uint8 (H, W, 3) RGB.
        matches: of `Spade.explain_regions`, in the picture's pixels.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    left = _marked(picture, matches)
    row_height = PATCH + LINE + GAP
    height = max(left.shape[0] + 2 * GAP, GAP + row_height * len(matches) + LINE)
    sheet = np.full((height, left.shape[1] + 2 * PATCH + 4 * GAP, 3), PAPER, np.uint8)
    sheet[GAP : GAP + left.shape[0], GAP : GAP + left.shape[1]] = left
    x = left.shape[1] + 2 * GAP
    _text(sheet, "this part", x, LINE - 6)
    _text(sheet, "normal", x + PATCH + GAP, LINE - 6)
    for number, match in enumerate(matches, 1):
        y = LINE + (number - 1) * row_height
        y0, x0, y1, x1 = match.box
        _paste(sheet, picture[y0:y1, x0:x1], y, x)
        _paste(sheet, match.normal_patch, y, x + PATCH + GAP)
        _text(sheet, f"{number}: distance {match.distance:.4g}", x, y + PATCH + LINE - 6)
        _text(sheet, match.name.replace("\\", "/").rpartition("/")[2], x + PATCH + GAP, y + PATCH + LINE - 6)
    return sheet


def _marked(picture: np.ndarray, matches: Sequence[Explanation]) -> np.ndarray:
    small = shrink(picture, PICTURE_SIDE).copy()
    scale = small.shape[0] / picture.shape[0]
    for number, match in enumerate(matches, 1):
        y0, x0, y1, x1 = (round(edge * scale) for edge in match.box)
        cv2.rectangle(small, (x0, y0), (x1 - 1, y1 - 1), MARK, 2)
        cv2.putText(small, str(number), (x0 + 4, y0 + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, MARK, 2, cv2.LINE_AA)
    return small


def _paste(sheet: np.ndarray, patch: np.ndarray, y: int, x: int) -> None:
    """Put a patch into a square of PATCH pixels, aspect kept, enlarged without inventing detail."""
    scale = PATCH / max(patch.shape[:2])
    size = (max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale)))
    grown = cv2.resize(patch, size, interpolation=cv2.INTER_NEAREST if scale > 2 else cv2.INTER_AREA)
    sheet[y : y + grown.shape[0], x : x + grown.shape[1]] = grown


def _text(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no other letters
    cv2.putText(sheet, plain[:28], (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
