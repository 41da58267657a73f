"""Whether the compiled search ever misses a neighbour, on real pictures: every position of many pictures against BLAS, some against the definition.

    python benchmarks/exactness.py DATASET... [--large 6]    # and so many pictures at the sizes of Wide-ResNet-50-2; needs the extra `timm`
    python benchmarks/exactness.py --tiny

All pictures of a data set, good and defective, are searched among 50 normal ones of 60 learnt (a picture never in itself): once in the nearest,
once in others. `blocked` is the comparison, itself held against the definition by the tests; SAMPLE positions also go through `reference`, the
definition in plain float64 loops. A neighbour is lost where ours is farther than theirs by more than 1e-9 of the distance.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import Row, finish, large_network, parser

from spadework import Spade
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import write_dataset
from spadework.detectors.reading import Seen
from spadework.kernels import Nearest, blocked, pruned, reference
from spadework.pyramid import descriptors

COLUMNS = {
    "data": "set",
    "network": "network",
    "pictures": "pictures",
    "kappa": "kappa",
    "positions checked": "positions",
    "handed over": "handed_over",
    "lost": "lost",
    "other match at the same distance": "other_match",
    "largest relative difference": "difference",
    "checked by the definition": "by_definition",
    "largest relative difference from it": "definition_difference",
    "same answer": "same_answer",
}
NORMAL, GALLERY = 60, 50
SAMPLE = 60  # positions of a data set that also go through `reference`


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument(
        "--large", type=int, default=0, metavar="PICTURES", help="of each data set, with a network of the paper's sizes"
    )
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        roots = options.dataset
        if not roots:
            roots = [Path(folder) / "rendered"]
            write_dataset(roots[0], categories=["gear"], n_train=8, n_good=1, n_per_defect=0, size=64)
        for root in roots:
            category = open_dataset(root).categories[0]
            normal = [str(sample.path) for sample in category.train]
            pictures = [*normal, *(str(sample.path) for sample in category.test)]
            for network, model, shown in models(pictures, options.tiny, options.large):
                model.fit(normal[:NORMAL], path=Path(folder) / "m.spade")
                for kappa in (1, 3):
                    checked = check(model, shown, kappa, 4 if options.tiny else SAMPLE)
                    rows.append({"set": Path(root).name, "network": network, "kappa": kappa} | checked)
                    print(rows[-1], file=sys.stderr)
    return finish("exactness", rows, COLUMNS, options)


def models(pictures: list[str], tiny: bool, large: int) -> list[tuple[str, Spade, list[str]]]:
    """Networks, and the pictures to check each with: of a large one some, evenly taken."""
    if tiny:
        return [("embedded", Spade(image_size=64, calibration_images=0), pictures)]
    made = [("embedded", Spade(calibration_images=0), pictures)]
    if large:
        model = Spade.paper(backbone=large_network(), calibration_images=0)
        made.append(("Wide-ResNet-50-2", model, pictures[:: -(-len(pictures) // large)]))
    return made


def check(model: Spade, pictures: list[str], kappa: int, sample: int) -> Row:
    """Search every picture twice and compare."""
    rng = np.random.default_rng(0)
    names = [entry.name for entry in model.gallery_.entries]
    row: Row = {"pictures": 0, "positions": 0, "handed_over": 0, "lost": 0, "other_match": 0, "difference": 0.0}
    row |= {"by_definition": 0, "definition_difference": 0.0}
    for seen in model._see_each(pictures):
        assert isinstance(seen, Seen)
        row["pictures"] += 1
        others = [index for index in range(len(names)) if names[index] != seen.name]
        own = names.index(seen.name) if seen.name in names else None
        nearest, _ = model.gallery_.nearest_images(seen.pyramid.global_vector, GALLERY, exclude=own)
        drawn = rng.choice(others, min(GALLERY, len(others)), replace=False)
        for images in ([int(i) for i in nearest], [int(i) for i in drawn]):
            compare(model, seen, images, kappa, row)
        if row["by_definition"] < sample:
            by_definition(model, seen, [int(i) for i in nearest][:10], kappa, row, rng)
    checked = row["positions"] > 0 and row["by_definition"] > 0
    row["same_answer"] = (
        checked and row["lost"] == 0 and row["difference"] < 1e-9 and row["definition_difference"] < 1e-9
    )
    return row


def ours(model: Spade, seen: Seen, images: list[int], kappa: int) -> Nearest | None:
    gallery = model.gallery_
    coded, layout, axes = gallery.coded(images, upsampling="bilinear")
    record = gallery.geometry.pack(seen.pyramid.levels)
    return pruned.search(record, layout, coded, layout, axes, kappa=kappa)


def compare(model: Spade, seen: Seen, images: list[int], kappa: int, row: Row) -> None:
    found = ours(model, seen, images, kappa)
    if found is None:
        row["handed_over"] += 1
        return
    queries = descriptors(seen.pyramid.levels)
    theirs = blocked.nearest(queries, model.gallery_.descriptors(images, upsampling="bilinear"), kappa=kappa)
    row["positions"] += len(queries)
    row["lost"] += int((found.distances > theirs.distances * (1 + 1e-9)).any(axis=1).sum())
    row["difference"] = max(row["difference"], largest_difference(found.distances, theirs.distances))
    row["other_match"] += int((found.indices != theirs.indices).any(axis=1).sum())


def by_definition(model: Spade, seen: Seen, images: list[int], kappa: int, row: Row, rng: np.random.Generator) -> None:
    found = ours(model, seen, images, kappa)
    if found is None:
        return
    queries = descriptors(seen.pyramid.levels)
    chosen = rng.choice(len(queries), 6, replace=False)
    rows = model.gallery_.descriptors(images, upsampling="bilinear")
    theirs = reference.nearest(queries[chosen], rows, kappa=kappa)
    row["by_definition"] += len(chosen)
    away = largest_difference(found.distances[chosen], theirs.distances)
    row["definition_difference"] = max(row["definition_difference"], away)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(found - expected) / np.maximum(expected, 1e-300)).max())


if __name__ == "__main__":
    sys.exit(main())
