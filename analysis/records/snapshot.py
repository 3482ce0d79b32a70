"""Snapshots: a hashed copy of records, small and typed, that figures are drawn from.

    <snapshot>/
      manifest.json                     cells, states, row counts, versions, sha256 of every file
      <study>/<cell id>/cell.json ...   what a record writes whole, byte for byte
      <study>/<cell id>/rows.parquet    its measurements, attempts stitched, typed
      <study>/<cell id>/items/          which evaluated examples were right

Packed, many cells share a few files, see `analysis.records.packs`: for keeping in a repository.

The same records give the same bytes, with the same version of pyarrow. `sha256` in the manifest
is over all the rest of it; `records` is over what was recorded alone, and its first ten digits are
what a figure shows in its corner, whether drawn from the records or from the snapshot. Every
file is checked as it is read. Checkpoints and wandb's files are no part of a snapshot.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.records import packs
from analysis.records.lines import Lines
from analysis.records.parquet import from_parquet, to_parquet
from analysis.records.record import ITEMS, MANIFEST, WHOLE, CellRecord, RecordRoot, parse
from analysis.records.storage import content, each

FORMAT = "batch-size-study snapshot 1"
PACKED = f"{FORMAT}, packed"
ROWS = "rows.parquet"


class Snapshot:
    """A snapshot that is read; answers what `RecordRoot` answers of records.

    Raises:
      AnalysisError: by every method, in one line, when a file is not what it was.
    """

    def __init__(self, root: Path, manifest: bytes):
        self.root = root
        self.manifest = parse(manifest) or {}
        self.packed = self.manifest.get("format") == PACKED
        self._packs: dict[tuple[str, int], packs.Pack] = {}
        if not self.packed and self.manifest.get("format") != FORMAT:
            raise AnalysisError(f"{root}: its {MANIFEST} is of no snapshot that this version reads")
        if _whole(self.manifest) != self.manifest.get("sha256"):
            raise AnalysisError(f"{root}: {MANIFEST} was changed; pull the snapshot anew")

    def studies(self) -> list[str]:
        return sorted(self.manifest["studies"])

    def cells(self, study: str) -> list[str]:
        return sorted(self.manifest["studies"][study])

    def records(self, study: str) -> list[CellRecord]:
        return each(self.root, lambda cell: self._record(study, cell), self.cells(study))

    def items(self, study: str, cell: str) -> dict[str, bytes]:
        if self.packed:
            return dict(self._pack(study, cell)[cell].items)
        under = f"{study}/{cell}/{ITEMS}/"
        return {
            path.removeprefix(under): self._file(path)
            for path in self.manifest["files"]
            if path.startswith(under)
        }

    def verify(self) -> int:
        """Reads every file; returns how many there are."""
        each(self.root, self._file, self.manifest["files"])
        return len(self.manifest["files"])

    def _record(self, study: str, cell: str) -> CellRecord:
        known = self.manifest["studies"][study][cell]
        if self.packed:
            files, rows, _ = self._pack(study, cell)[cell]
        else:
            under = f"{study}/{cell}"
            files = {
                name: self._file(f"{under}/{name}")
                if f"{under}/{name}" in self.manifest["files"]
                else b""
                for name in WHOLE
            }
            rows = from_parquet(self._file(f"{under}/{ROWS}"))
        lines = Lines(rows, known["attempts"], known["superseded_rows"], known["dropped_lines"])
        return CellRecord(id=cell, files=files, lines=lines, digest=known["content"])

    def _pack(self, study: str, cell: str) -> packs.Pack:
        key = study, self.manifest["studies"][study][cell]["pack"]
        if key not in self._packs:
            names = packs.names(*key)
            self._packs[key] = packs.unpacked(*(self._file(name) for name in names))
        return self._packs[key]

    def _file(self, path: str) -> bytes:
        text = content(self.root.joinpath(*path.split("/")))
        if hashlib.sha256(text).hexdigest() != self.manifest["files"][path]["sha256"]:
            gone = "" if text else " or removed"
            raise AnalysisError(f"{self.root}: {path} was changed{gone}; pull the snapshot anew")
        return text


class Joined:
    """Records, and of an earlier snapshot the cells that they have not brought to their end.

    Answers what `RecordRoot` answers. So a study is carried on where its records are gone.
    """

    def __init__(self, records: RecordRoot | Snapshot, earlier: Snapshot):
        self.root = records.root
        self._sources = (records, earlier)
        self._known: dict[str, dict[str, tuple[CellRecord, RecordRoot | Snapshot]]] = {}

    def studies(self) -> list[str]:
        return sorted({study for source in self._sources for study in source.studies()})

    def cells(self, study: str) -> list[str]:
        return sorted(self._chosen(study))

    def records(self, study: str) -> list[CellRecord]:
        return [record for _, (record, _) in sorted(self._chosen(study).items())]

    def items(self, study: str, cell: str) -> dict[str, bytes]:
        _, source = self._chosen(study)[cell]
        return source.items(study, cell)

    def _chosen(self, study: str) -> dict[str, tuple[CellRecord, RecordRoot | Snapshot]]:
        if study not in self._known:
            found = self._known[study] = {}
            for source in self._sources:
                for record in source.records(study) if study in source.studies() else ():
                    if record.id not in found or found[record.id][0].done is None:
                        found[record.id] = (record, source)
        return self._known[study]


def write(
    source: RecordRoot | Snapshot | Joined,
    out: Path,
    *,
    studies: Sequence[str] | None = None,
    kind: str = "records",
    versions: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda cell: None,
    packed: bool = False,
    items: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes a snapshot to the folder `out`, whole or not at all; returns its manifest.

    Args:
      studies: which; None for all.
      kind: where the records came from, for the manifest: "records", "wandb-offline", "wandb".
      versions: of what else made it.
      progress: told the id of each cell that is done.
      packed: few files instead of several for each cell.
      items: metrics of which to keep the evaluated examples; None for all.

    Raises:
      AnalysisError: `out` holds something else, or cannot be written.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _is_ours(out)):
        raise AnalysisError(f"{out} is there and no snapshot; choose another place")
    known = source.studies()
    if missing := sorted({*(studies or ())} - {*known}):
        raise AnalysisError(
            f"no study {', '.join(missing)} there; there are: {', '.join(known) or 'none'}"
        )
    if not known:
        raise AnalysisError(f"no records in {source.root}; `study run STUDY` makes them")
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        files: dict[str, Any] = {}
        told: dict[str, dict[str, Any]] = {}
        there: set[str] = set()
        for study in studies or known:
            told[study] = {}

            def taken(study: str = study) -> Iterable[packs.Taken]:
                for record in source.records(study):
                    every = source.items(study, record.id)
                    there.update(name.rpartition(".")[0] for name in every)
                    kept = _of_metrics(every, items)
                    about = _about(record)
                    if packed:
                        about["pack"] = len(told[study]) // packs.CELLS
                    told[study][record.id] = about
                    yield packs.Taken(record, kept)
                    progress(record.id)

            for path, text in packs.packed(study, taken()) if packed else _apart(study, taken()):
                place = part.joinpath(*path.split("/"))
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(text)
                files[path] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
        if lacking := [one for one in items or () if one.replace("/", ".") not in there]:
            raise AnalysisError(
                f"no cell holds the evaluated examples of {', '.join(lacking)}; there are those of "
                + (", ".join(sorted(name.replace(".", "/") for name in there)) or "nothing")
            )
        manifest = {
            "format": PACKED if packed else FORMAT,
            "from": kind,
            "records": _of_contents(told),
            "studies": told,
            "files": dict(sorted(files.items())),
            "versions": _versions(versions or {}),
        }
        manifest["sha256"] = _whole(manifest)
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    except OSError as error:
        raise AnalysisError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _is_ours(folder: Path) -> bool:
    return str((parse(content(folder / MANIFEST)) or {}).get("format")).startswith(FORMAT[:-1])


def _apart(study: str, taken: Iterable[packs.Taken]) -> Iterable[tuple[str, bytes]]:
    """Paths and bytes, each cell in a folder of its own."""
    for record, items in taken:
        under = f"{study}/{record.id}"
        for name in WHOLE:
            if record.files[name]:
                yield f"{under}/{name}", record.files[name]
        yield f"{under}/{ROWS}", to_parquet(record.lines.rows)
        for name, text in items.items():
            yield f"{under}/{ITEMS}/{name}", text


def _of_metrics(items: Mapping[str, bytes], metrics: Sequence[str] | None) -> dict[str, bytes]:
    """The files of these metrics, as `analysis.records.frame.items` names them."""
    if metrics is None:
        return dict(items)
    kept = {metric.replace("/", ".") for metric in metrics}
    return {name: text for name, text in items.items() if name.rpartition(".")[0] in kept}


def _about(record: CellRecord) -> dict[str, Any]:
    lines, about = record.lines, record.about or {}
    last = record.done or (lines.rows[-1] if lines.rows else {})
    return {
        "status": record.status,
        "rows": len(lines.rows),
        "superseded_rows": lines.superseded,
        "dropped_lines": lines.dropped,
        "attempts": lines.attempts,
        "step": last.get("step", 0),
        "steps": about.get("steps"),
        "versions": about.get("versions") or {},
        "content": record.digest,
    }


def _of_contents(studies: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """As `analysis.figures.plot.style.provenance` has it."""
    contents = sorted(cell["content"] for cells in studies.values() for cell in cells.values())
    return hashlib.sha256("".join(contents).encode()).hexdigest()


def _whole(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _versions(more: Mapping[str, str]) -> dict[str, str]:
    import pyarrow as pa

    return {"pyarrow": pa.__version__, **more}
