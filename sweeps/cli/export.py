"""`study export`: a cell's checkpoint as files of big_vision or Hugging Face."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sweeps.cli.data_embed import ImageSize
from sweeps.cli.options import CellName, Data, Json, Root, StudyName, local, root_of
from sweeps.study import StudyError, abbreviate

if TYPE_CHECKING:
    from study.config import Cell
    from study.interop.export import Source
    from sweeps.study import Study


def export(
    name: StudyName,
    cell: CellName,
    format_: Annotated[
        Literal["big_vision", "hugging-face"],
        typer.Option(
            "--format",
            help="A big_vision .npz, or a folder for transformers' SiglipModel with its tokenizer "
            "and image processor.",
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="DIR", callback=local, help="Output directory, new or empty.")
    ],
    step: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="the last", help="Step of the checkpoint."),
    ] = None,
    image_tower: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="SigLiT: write the frozen image tower too, from the checkpoint that the "
            "embeddings were made with.",
        ),
    ] = None,
    image_size: ImageSize = None,
    root: Root = "runs",
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to big_vision or Hugging Face.

    Writes both towers, t and b of a SigLIP cell, and the text tower of a SigLiT cell, of any
    checkpoint of its record. What the other implementation does differently is printed, a line
    each, and a tower that it does not have is refused, such as one that averages word pieces.
    """
    from study.config import CachedImage, from_dict
    from study.interop.export import Source, export_big_vision
    from study.interop.export_hugging_face import export_hugging_face
    from study.records.record import CELL, read_json

    study = _load(name)
    target = _check_empty(Path(out))
    folder = _find_record(study, name, cell, root)
    about = read_json(folder / CELL) or {}
    trained = from_dict(about["cell"])
    step, params = _load_params(folder, step)
    source = Source.of_cell(trained, params, step)
    data = data or (study.data_root if study is not None else "data")
    notes: list[str] = []
    if format_ == "hugging-face":
        source = _add_tokenizer(source, trained, data, about, notes)
    if isinstance(trained.model.image, CachedImage):
        tower = _read_tower(trained, data)
        if image_tower is None:
            notes.append(_explain_frozen(trained.model.image.embeddings, tower))
        else:
            source = source.add_image_tower(image_tower, tower, image_size=image_size)
    elif image_tower is not None:
        raise StudyError(f"--image-tower: {trained.id} has an image tower of its own")
    write = export_big_vision if format_ == "big_vision" else export_hugging_face
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            notes = [*write(source, made), *notes]
            if target.exists():
                target.rmdir()
            made.rename(target)
    except OSError as error:
        raise StudyError(f"cannot write {out}: {error.strerror or error}") from None
    files = sorted(target.iterdir())
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print(
            json.dumps(
                {
                    "study": folder.parent.name,
                    "cell": trained.id,
                    "step": step,
                    "format": format_,
                    "out": out,
                    "files": [path.name for path in files],
                    "bytes": size,
                    "notes": notes,
                },
                indent=1,
            )
        )
        return 0
    print(f"{out}: {trained.id} at step {step:,}, {size / 1e6:,.1f} MB")
    for path in files:
        print(f"  {path.name}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _load(name: str) -> Study | None:
    """The study; None if only its records may be left."""
    from sweeps.registry import load_study

    try:
        return load_study(name)
    except StudyError:
        if "/" in name or name.endswith(".py"):
            raise
        return None


def _check_empty(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"--out {out} is not an empty folder; choose another")
    return out


def _find_record(study: Study | None, name: str, cell: str, root: str) -> Path:
    """The folder of the only recorded cell whose id starts with `cell`."""
    from study.records.record import CELL
    from study.records.storage import listdir, resolve

    place = resolve(root_of(root)).absolute()
    folder = place / name if study is None else study.folder(place)
    ids = [path.name for path in listdir(folder) if path.name.startswith(cell)]
    if cell in ids:
        ids = [cell]
    if len(ids) > 1:
        raise StudyError(
            f"{cell!r} matches {len(ids)} cells of {name}: {abbreviate(ids)}; write more of the id"
        )
    if ids and (folder / ids[0] / CELL).exists():
        return folder / ids[0]
    if study is None:
        from sweeps.registry import load_study

        if not listdir(folder):
            load_study(name)  # raises: neither a study nor a record
        raise StudyError(f"{folder} has no record of a cell {cell!r}")
    chosen = study.cell(cell)
    raise StudyError(f"{chosen.id} has no record in {folder}; train it first, or give its --root")


def _load_params(folder: Path, step: int | None) -> tuple[int, Any]:
    from study.training.checkpoint import load_checkpoint, saved_steps

    steps = saved_steps(folder / "checkpoints")
    if not steps:
        raise StudyError(
            f"{folder} has no checkpoint; give the --root that the cell was trained in"
        )
    if step is None:
        step = steps[-1]
    elif step not in steps:
        kept = abbreviate([str(s) for s in steps[::-1]], most=10)
        raise StudyError(f"--step {step}: {folder} has checkpoints of steps {kept}")
    return step, load_checkpoint(folder / "checkpoints", step, part="params")["params"]


def _add_tokenizer(
    source: Source, cell: Cell, data: str, about: dict[str, Any], notes: list[str]
) -> Source:
    """With the tokenizer of the data set, if that is here and the cell was trained on it."""
    from study.data.files import join, read_bytes, to_path
    from study.data.formats.dataset import DataError, Dataset

    named = cell.data.tokenizer
    try:
        dataset = Dataset.open(join(to_path(data), cell.data.dataset))
        model = read_bytes(join(dataset.folder, named) if named else dataset.tokenizer)
    except (DataError, OSError):
        notes.append(
            f"no tokenizer is written: the data set {cell.data.dataset} is not in {data}; "
            "give --data"
        )
        return source
    if not cell.data.mix and about.get("dataset_fingerprint") != dataset.fingerprint:
        notes.append(
            f"no tokenizer is written: the cell was trained on another version of {dataset.folder}"
        )
        return source
    return source._replace(tokenizer=model)


def _read_tower(cell: Cell, data: str) -> dict[str, Any]:
    """The tower.json of the embeddings that a SigLiT cell was trained on; empty if unknown."""
    from study.data.embeddings import TOWER_FILE, embeddings_folder
    from study.data.files import join, to_path
    from study.data.formats.dataset import DataError, Dataset
    from study.records.record import read_json

    try:
        dataset = Dataset.open(join(to_path(data), cell.data.dataset))
        name = getattr(cell.model.image, "embeddings", "")
        return read_json(embeddings_folder(dataset, name) / TOWER_FILE) or {}
    except DataError:
        return {}


def _explain_frozen(embeddings: str, tower: dict[str, Any]) -> str:
    start = f"the image tower is not in the cell: its images are the embeddings {embeddings!r}"
    if "checkpoint" in tower:
        return f"{start}, made with {tower['checkpoint']}; --image-tower FILE writes it too"
    if "cell" in tower:
        return f"{start}, made with the cell {tower['cell']}; export that one for its image tower"
    if "kind" in tower:
        return f"{start}, made with a tower that cannot be written ({tower['kind']})"
    return f"{start} of an unknown tower; --image-tower FILE writes one too"
