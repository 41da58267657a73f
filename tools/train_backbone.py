"""Train the network inside the package, and export it.

    python tools/train_backbone.py train DATA --out RUN                    on the processor, overnight
    python tools/train_backbone.py train DATA --out RUN --device cuda      on one GPU, in minutes
    python tools/train_backbone.py export RUN network.onnx

DATA is a folder with Tiny ImageNet as `train.npz` and `val.npz`. A run that was stopped goes on where its last epoch ended when the same
command is given again.
Also `random FILE` and `filters FILE`: the same shape without training, to compare with.
Needs the extra `torch`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("torch", "onnx", "onnxscript")


def main(arguments: list[str] | None = None) -> int:
    """Parse, and call what was asked for."""
    options = _parser().parse_args(arguments)
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; in a clone: pip install -e '.[torch]'")
    options.run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train, or go on")
    train.add_argument("data", type=Path, help="folder with train.npz and val.npz")
    train.add_argument("--out", type=Path, required=True, help="folder of the run: recipe, log, checkpoint")
    train.add_argument("--cache", type=Path, help="folder for the decoded pictures (1.4 GB); DATA by default")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--threads", type=int, help="of the processor; all by default")
    train.add_argument(
        "--share", action="store_true", help="use one thread fewer while that is faster: others use the machine"
    )
    train.add_argument("--start", type=Path, metavar="CHECKPOINT", help="weights to begin with, of another run")
    train.add_argument("--until", type=int, metavar="EPOCH", help="stop after so many epochs of the whole schedule")
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="change the recipe, as in epochs=1")
    train.set_defaults(run=_train)
    export = commands.add_parser("export", help="write a run's averaged weights as ONNX")
    export.add_argument("source", type=Path, metavar="RUN")
    export.set_defaults(run=_export)
    for name in ("random", "filters"):
        commands.add_parser(name, help=f"write a network of the same shape: {name}").set_defaults(
            run=_export, source=name
        )
    for each in commands.choices.values():
        if each is not train:
            each.add_argument("target", type=Path, metavar="FILE")
    return parser


def _train(options: argparse.Namespace) -> None:
    import torch
    from backbone_training import data, loop
    from backbone_training.recipe import Recipe

    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe(**_changes(options.set, {field.name for field in fields(Recipe)}))
    cache = options.cache or options.data
    train, val = (data.load(options.data, split, cache) for split in data.SPLITS)
    loop.Loop(recipe, train, val, options.out, device=options.device, share=options.share, start=options.start).run(
        until=options.until
    )


def _changes(pairs: list[str], known: set[str]) -> dict[str, object]:
    changes = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            raise SystemExit(f"the recipe has no {name!r}; it has: {', '.join(sorted(known))}")
        try:
            changes[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise SystemExit(f"{pair}: the value must be a number or a list of numbers, as in epochs=1") from None
    return changes


def _export(options: argparse.Namespace) -> None:
    from backbone_training import export

    name = str(options.source)
    if name not in ("random", "filters"):
        made = export.load(options.source)  # says what is missing
        name = f"{options.source.name}, {export.finished_epochs(options.source)} epochs"
    else:
        made = export.load(name)
    export.write(made, options.target, name=name)
    print(f"{options.target}: {name}, {options.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
