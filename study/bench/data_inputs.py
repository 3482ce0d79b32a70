"""The examples that `study bench data` loads: JPEGs and embeddings, in each format of a contender.

<folder>/images/00000.tar ...               and dataset.json, sentencepiece.model
         array_record/images-00000.array_record
         embeddings-768/00000.tar ...       captions; dataset.json, embeddings/z/train-00000.npy
         npy-768/00000.tar ...              the embeddings and captions as members of tars
         rows-768.npy  tokens-768.npy       the same in two arrays
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from study.bench.gcs_server import Server
from study.bench.loaders import Inputs
from study.config import Data
from study.data.embeddings import TOWER_FILE
from study.data.formats.array_record import example_class
from study.data.formats.dataset import Dataset
from study.data.formats.index_shards import index_shards
from study.data.formats.webdataset import write_shard
from study.data.token_shards import tokenize_dataset
from study.records.record import write_json

_WORDS = "a photo of the small large red green blue old new wooden house tree dog bird on by river"
_IMAGE_SHARD, _ROW_SHARD = 128, 1024
_DISTINCT = 256  # JPEGs; the others repeat them
_PIECES = 200


def write_images(
    folder: Path, *, examples: int, image_size: int, batch_size: int, workers: int
) -> Inputs:
    """JPEGs of img2dataset's default size, with smooth content like that of photos."""
    rng = np.random.default_rng(0)
    jpegs = [_jpeg(i, rng) for i in range(min(_DISTINCT, examples))]
    rows = [(jpegs[i % len(jpegs)], _caption(rng)) for i in range(examples)]
    members = ((f"{i:09d}", {"jpg": jpeg, "txt": text}) for i, (jpeg, text) in enumerate(rows))
    dataset = _write_set(folder / "images", members, _IMAGE_SHARD)
    records = folder / "array_record"
    records.mkdir()
    paths = []
    for k, start in enumerate(range(0, examples, _IMAGE_SHARD)):
        paths.append(records / f"images-{k:05d}.array_record")
        _write_array_record(paths[-1], rows[start : start + _IMAGE_SHARD])
    return Inputs(
        dataset=str(dataset.folder),
        tars=tuple(map(str, dataset.split("train").shards)),
        array_records=tuple(map(str, paths)),
        tokenizer=str(dataset.tokenizer),
        examples=examples,
        image_size=image_size,
        batch_size=batch_size,
        block=32,
        open_blocks=8,
        workers=workers,
    )


def write_embeddings(
    folder: Path, *, examples: int, dim: int, batch_size: int, workers: int
) -> Inputs:
    """Random float16 rows and captions."""
    rng = np.random.default_rng(0)
    captions = [_caption(rng) for _ in range(examples)]
    keys = [f"{i:09d}" for i in range(examples)]
    texts = ((key, {"txt": text}) for key, text in zip(keys, captions, strict=True))
    dataset = _write_set(folder / f"embeddings-{dim}", texts, _ROW_SHARD)
    rows_NxE = rng.standard_normal((examples, dim), np.float32).astype(np.float16)
    to = dataset.folder / "embeddings" / "z"
    to.mkdir(parents=True)
    for k, start in enumerate(range(0, examples, _ROW_SHARD)):
        np.save(to / f"train-{k:05d}.npy", rows_NxE[start : start + _ROW_SHARD])
    write_json(to / TOWER_FILE, {"dim": dim, "dataset_fingerprint": dataset.fingerprint})
    shards = sorted(tokenize_dataset(dataset, Data(), workers=1).glob("train-*.npy"))
    rows, tokens = folder / f"rows-{dim}.npy", folder / f"tokens-{dim}.npy"
    np.save(rows, rows_NxE)
    np.save(tokens, np.concatenate([np.load(shard) for shard in shards]))
    members = (
        (key, {"npy": _npy(row_E), "txt": text})
        for key, row_E, text in zip(keys, rows_NxE, captions, strict=True)
    )
    tars = _write_tars(folder / f"npy-{dim}", members, _ROW_SHARD)
    return Inputs(
        dataset=str(dataset.folder),
        tars=tuple(map(str, tars)),
        rows=str(rows),
        tokens=str(tokens),
        tokenizer=str(dataset.tokenizer),
        examples=examples,
        dim=dim,
        batch_size=batch_size,
        block=256,
        open_blocks=64,
        workers=workers,
    )


def upload(inputs: Inputs, server: Server, bucket: str) -> Inputs:
    """Copies data set and tars to a bucket; a reader by HTTP gets URLs of the server."""
    source = Path(inputs.dataset)
    tars = [Path(tar) for tar in inputs.tars]
    for folder in {source, tars[0].parent}:
        server.upload(bucket, folder, folder.name)
    objects = [f"{tar.parent.name}/{tar.name}" for tar in tars]
    return dataclasses.replace(
        inputs,
        dataset=f"gs://{bucket}/{source.name}",
        tars=tuple(
            f"{server.url}/storage/v1/b/{bucket}/o/{quote(o, safe='')}?alt=media" for o in objects
        ),
        array_records=tuple(f"gs://{bucket}/{Path(p).name}" for p in inputs.array_records),
        rows="",
        tokens="",
    )


# --- one example --------------------------------------------------------------------------------


def _jpeg(i: int, rng: np.random.Generator) -> bytes:
    width, height = (256, 340) if i % 2 else (341, 256)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = photo + rng.normal(0, 6, photo.shape).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def _caption(rng: np.random.Generator) -> bytes:
    return " ".join(rng.choice(_WORDS.split(), 9)).encode()


def _npy(row_E: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, row_E)
    return out.getvalue()


# --- shards -------------------------------------------------------------------------------------

_Members = Iterator[tuple[str, dict[str, bytes]]]


def _write_set(folder: Path, rows: _Members, shard: int) -> Dataset:
    _write_tars(folder, rows, shard)
    dataset = index_shards(folder, train_pieces=_PIECES, workers=1).dataset
    assert dataset is not None
    return dataset


def _write_tars(folder: Path, rows: _Members, shard: int) -> list[Path]:
    folder.mkdir(parents=True)
    paths: list[Path] = []
    while part := list(itertools.islice(rows, shard)):
        paths.append(folder / f"{len(paths):05d}.tar")
        write_shard(paths[-1], part)
    return paths


def _write_array_record(path: Path, rows: Iterable[tuple[bytes, bytes]]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for jpeg, text in rows:
        example = example_class()()
        for name, value in (("image", jpeg), ("caption", text)):
            example.features.feature[name].bytes_list.value.append(value)
        writer.write(example.SerializeToString())
    writer.close()
