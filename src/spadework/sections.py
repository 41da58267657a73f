"""Sections of a model folder: several galleries in one model, each as if the folder were its own.

In: a model folder. Out: `Section`, a model folder in the same place whose header and array names are its own; its files are among the whole's.
In the whole's header section NAME is "sections": {NAME: its header, without arrays}, and array A of it is "NAME.A". So the whole commits, checks,
copies, moves and holds open what its sections keep together with what it keeps itself: all at once or not at all.
"""

from __future__ import annotations

from typing import Any

from spadework.storage import ModelFolder


class Section(ModelFolder):
    """A part of a model folder under a name. What it adds counts when it is committed, which commits the whole."""

    def __init__(self, whole: ModelFolder, name: str) -> None:
        """Open a section, or begin it where the whole has none of this name."""
        start = f"{name}."
        own = {key.removeprefix(start): entry for key, entry in whole.header["arrays"].items() if key.startswith(start)}
        fields: dict[str, Any] = whole.header.get("sections", {}).get(name, {})
        super().__init__(whole.path, {**fields, "arrays": own}, lasting=whole.lasting)
        self.whole, self.name = whole, name
        self._held = whole._held  # whoever holds the whole holds its sections

    def commit(self) -> None:
        """Make everything written so far to this section and to the whole count, at once or not at all."""
        self.join()
        self.whole.commit()

    def join(self) -> None:
        """Enter what this section has into the whole's header; it counts from the whole's next `commit`."""
        fields = {key: value for key, value in self.header.items() if key != "arrays"}
        self.whole.header.setdefault("sections", {})[self.name] = fields
        arrays = self.whole.header["arrays"]
        arrays.update({f"{self.name}.{key}": entry for key, entry in self.header["arrays"].items()})
