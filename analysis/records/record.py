"""The records under one root, cell by cell, as they were written.

    <root>/<study>/<cell id>/{cell.json, metrics.jsonl, FAILED.json, DONE.json, items/}

The root is a folder or a bucket. `analysis.records.snapshot.Snapshot` answers the same questions of
a snapshot; `analysis.records.open` tells which of the two a place is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records.lines import METRICS, PARTS, Lines, read_lines, read_text
from analysis.records.storage import children, content, each

ABOUT, DONE, FAILED, ITEMS = "cell.json", "DONE.json", "FAILED.json", "items"
WHOLE = (ABOUT, DONE, FAILED)  # files that are written whole, beside the lines
MANIFEST = "manifest.json"  # its presence makes a folder a snapshot
CELL_ID = re.compile(r"b\d+-.+-[0-9a-f]{8}$")


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What one cell left.

    Attributes:
      files: the bytes of `WHOLE`; b"" for one that is not there.
      lines: of all its attempts, stitched.
      digest: sha256 over name and bytes of the record, the same when read from a snapshot.
    """

    id: str
    files: Mapping[str, bytes]
    lines: Lines
    digest: str

    @property
    def about(self) -> dict[str, Any] | None:
        return parse(self.files[ABOUT])

    @property
    def done(self) -> dict[str, Any] | None:
        return parse(self.files[DONE])

    @property
    def failed(self) -> dict[str, Any] | None:
        return parse(self.files[FAILED])

    @property
    def status(self) -> str:
        """One of `analysis.records.frame.STATUSES`."""
        if done := self.done:
            return str(done.get("status", "done"))
        if self.failed:
            return "failed"
        begun = self.files[ABOUT] or self.lines.attempts or self.lines.dropped
        return "running-or-interrupted" if begun else "not started"


class RecordRoot:
    """A folder or bucket of records."""

    def __init__(self, root: Path):
        self.root = root

    def studies(self) -> list[str]:
        found = children(self.root)
        return [p.name for p in found if not p.name.startswith(".") and p.is_dir()]

    def cells(self, study: str) -> list[str]:
        """Ids of the cells that have a folder, by name."""
        found = [p for p in children(self.root / study) if p.is_dir()]
        known = each(self.root, _is_cell, found)
        return [path.name for path, so in zip(found, known, strict=True) if so]

    def records(self, study: str) -> list[CellRecord]:
        """All cells of a study, by id."""
        return each(self.root, lambda cell: self._record(study, cell), self.cells(study))

    def items(self, study: str, cell: str) -> dict[str, bytes]:
        """The files of `items/`, by name."""
        found = children(self.root / study / cell / ITEMS)
        kept = [p for p in found if p.suffix in (".npy", ".json") and not p.name.startswith(".")]
        return dict(zip([p.name for p in kept], each(self.root, content, kept), strict=True))

    def _record(self, study: str, cell: str) -> CellRecord:
        folder = self.root / study / cell
        files = {name: content(folder / name) for name in WHOLE}
        text = read_text(folder)
        digest = digest_of(cell, files, text)
        return CellRecord(id=cell, files=files, lines=read_lines(text), digest=digest)


def parse(text: bytes) -> dict[str, Any] | None:
    """The JSON object that `text` holds; None where it is torn or no object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def digest_of(name: str, files: Mapping[str, bytes], lines: bytes) -> str:
    """sha256 over the name of a cell and the bytes of its record."""
    digest = hashlib.sha256(name.encode())
    for file, text in (
        (ABOUT, files[ABOUT]),
        (METRICS, lines),
        *((n, files[n]) for n in WHOLE[1:]),
    ):
        digest.update(f"\0{file}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _is_cell(folder: Path) -> bool:
    known = (*WHOLE, METRICS, PARTS)
    return bool(CELL_ID.match(folder.name)) or any(p.name in known for p in children(folder))
