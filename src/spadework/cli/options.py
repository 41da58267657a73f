"""Options that several commands take: declared once, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spadework.cli.console import settings_from, without_none

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A fitted model, NAME.spade.", show_default=False)]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES...", help="Pictures, or folders that are searched for pictures.", show_default=False
    ),
]
DatasetFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="A data set's folder; see `spadework datasets` for the layouts.", show_default=False
    ),
]
DetectorName = Annotated[str, typer.Option("--detector", help="Which method; see `spadework detectors`.")]
DetectorNames = Annotated[
    list[str],
    typer.Option("--detector", help='Which method, or "all"; may be repeated; see `spadework detectors`.'),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help='The network: "embedded", FILE.onnx, timm:NAME or torchvision:NAME; see `spadework backbones`.',
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Local weights for timm: and torchvision:, .pth or .safetensors.", show_default=False
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help='How large pictures are seen: the side of a square of the same area, HEIGHTxWIDTH, or "auto".  '
        "[default: auto with spade, 512 with spade-scales, else 256]",
        show_default=False,
    ),
]
SearchRadius = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        help="For parts that lie alike in all pictures: compare each place only with what lies within so many pixels of it; "
        "`spadework info MODEL --alignment` tells whether they do.  [default: everywhere]",
        show_default=False,
    ),
]
FalseAlarms = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        help="The share of normal pictures that may be called anomalous, such as 0.02.  [default: 0.01]",
        show_default=False,
    ),
]
Paper = Annotated[bool, typer.Option("--paper", help="Start from the method's published configuration.")]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Start from the method's configuration for a first look: it shows that a method runs."
    ),
]
Seeds = Annotated[
    list[int],
    typer.Option(
        "--seed",
        metavar="N",
        help="A run with this seed, of methods that have one; may be repeated.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None, typer.Option(metavar="N", help="Runs at once, each in a process of its own.", show_default=False)
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        help="Memory that all runs together may take (GiB): more start only where they fit.",
        show_default=False,
    ),
]
OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file.", show_default=False)]
TableFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="text, markdown, latex or html.  [default: that of the file's name, else text]",
        show_default=False,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="How features are kept: float32, or float16 for half the room.  [default: float32]",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Threads of the network and of the search.  [default: one a core]", show_default=False
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting of the method, e.g. --set kappa=3, --set levels=1,2, --set crop=160x224; may be repeated; see `spadework detectors`.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only say what it will take: time, memory, disk, and what to change if that is too much."
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help='Write one JSON document; "-" prints it and nothing else.', show_default=False
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Write an HTML report here: one self-contained file, report.html.", show_default=False
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The data set's layout, if it is not to be found out.", show_default=False),
]
ProLimit = Annotated[float, typer.Option(metavar="RATE", help="False-positive rate up to which PRO is integrated.")]
Resolution = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help='Where pixels are compared: "original", or "view" of the network as in the paper.  [default: view if cropped, else original]',
        show_default=False,
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at the first picture that cannot be read, instead of going on without it."),
]


def chosen_settings(pairs: list[str], **given: Any) -> dict[str, Any]:
    """Return a detector's settings from `--set` and the options that stand for single settings."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in without_none(given).items()}
    if "image_size" in plain:
        plain["image_size"] = _image_size(plain["image_size"])
    return {**settings_from(pairs), **plain}


def _image_size(text: str) -> int | tuple[int, int] | str:
    """What `--image-size` says: 320, 480x640, or a word, which the method accepts or refuses."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        return text
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
