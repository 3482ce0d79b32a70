"""`study bench data`: throughput of our loaders against two plain ways to load the same bytes.

- **images**: webdataset shards of JPEGs, decoded, resized and tokenised, against a plain Python
  loop over tarfile, PIL and SentencePiece, which reads in file order without a shuffle.
- **embeddings**: cached embeddings and tokens, against Grain taking one example at a time.

Rounds alternate, and each reads every example once. The ratio is that of the median rates.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grain
import numpy as np
import sentencepiece
from PIL import Image

from study.config import CachedImage, Data, ViT
from study.data.formats.dataset import Dataset
from study.data.formats.index_shards import index_shards
from study.data.formats.webdataset import write_shard
from study.data.sources import EmbeddingSource, ImageSource, Source
from study.data.stream import batches
from study.records.record import write_json

_WORDS = "a photo of the small large red green blue old new wooden house tree dog bird on by river"
_DIM, _SHARD = 768, 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Examples per second of both, medians over the rounds, and the ratio ours / theirs.

    `ratios` are those of the single rounds.
    """

    name: str
    against: str
    examples: int
    ours_per_s: float
    theirs_per_s: float
    ratio: float
    ratios: tuple[float, ...]


def bench(
    *,
    images: int = 512,
    embeddings: int = 32_768,
    image_size: int = 224,
    batch_size: int = 256,
    threads: int | None = None,
    rounds: int = 3,
) -> list[Result]:
    """Writes both inputs to a temporary folder and times both ways to read each.

    Arguments:
      images, embeddings: examples of each input, rounded down to whole batches.
      image_size: in pixels, after resizing.
      threads: decoding threads; None for one per core.
      rounds: timed rounds, after one to warm up.
    """
    with tempfile.TemporaryDirectory(prefix="study-bench-") as name:
        folder = Path(name)
        image_set = _image_set(folder / "images", images - images % batch_size)
        embedded = _embedded_set(folder / "embedded", embeddings - embeddings % batch_size)
        data, size = Data(), image_size

        def ours() -> Iterator[object]:
            source = ImageSource(
                image_set, "train", ViT(image_size=size), data, threads=threads, keep=False
            )
            return _stream(source, batch_size)

        cached = EmbeddingSource(embedded, "train", CachedImage(embeddings="z", dim=_DIM), data)
        return [
            _compare(
                "images",
                "a loop over tarfile, PIL and SentencePiece",
                ours,
                lambda: _plain_loop(image_set, size, data.text_length, batch_size),
                rounds=rounds,
                examples=image_set.split("train").examples,
            ),
            _compare(
                "embeddings",
                "Grain, example by example",
                lambda: _stream(cached, batch_size),
                lambda: _grain_elements(cached, batch_size),
                rounds=rounds,
                examples=cached.size,
            ),
        ]


# --- ours and theirs ----------------------------------------------------------------------------


def _stream(source: Source, batch_size: int) -> Iterator[object]:
    steps = source.size // batch_size
    return batches(source, seed=0, batch_size=batch_size, first_step=0, chunks=[1] * steps)


def _plain_loop(dataset: Dataset, size: int, length: int, batch_size: int) -> Iterator[object]:
    """The first loader one would write: no index, no shuffle, no threads."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(dataset.tokenizer))
    pixels, tokens = [], []
    for shard in dataset.split("train").shards:
        with tarfile.open(shard) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                if member.name.endswith(".txt"):
                    ids = tokenizer.encode(stream.read().decode().lower())[: length - 1]
                    tokens.append(ids + [tokenizer.eos_id()] * (length - len(ids)))
                else:
                    image = Image.open(io.BytesIO(stream.read())).convert("RGB")
                    image = image.resize((size, size), Image.Resampling.BICUBIC)
                    pixels.append(np.asarray(image))
                if len(tokens) == len(pixels) == batch_size:
                    yield {"image": np.stack(pixels), "text": np.array(tokens, np.int32)}
                    pixels, tokens = [], []


def _grain_elements(source: EmbeddingSource, batch_size: int) -> Iterator[object]:
    def one(i: int) -> dict[str, np.ndarray]:
        return {n: a[0] for n, a in source.batch(np.array([i])).items()}

    rows = grain.MapDataset.range(source.size).shuffle(seed=0).map(one)
    return iter(rows.batch(batch_size, drop_remainder=True).to_iter_dataset())


def _compare(
    name: str,
    against: str,
    ours: Callable[[], Iterator[object]],
    theirs: Callable[[], Iterator[object]],
    *,
    rounds: int,
    examples: int,
) -> Result:
    _rate(ours, examples)  # the first round of each opens files and fills caches
    _rate(theirs, examples)
    pairs = [(_rate(ours, examples), _rate(theirs, examples)) for _ in range(rounds)]
    mine = statistics.median(a for a, _ in pairs)
    other = statistics.median(b for _, b in pairs)
    return Result(
        name=name,
        against=against,
        examples=examples,
        ours_per_s=mine,
        theirs_per_s=other,
        ratio=mine / other,
        ratios=tuple(a / b for a, b in pairs),
    )


def _rate(make: Callable[[], Iterator[object]], examples: int) -> float:
    start = time.perf_counter()
    for _ in make():
        pass
    return examples / (time.perf_counter() - start)


# --- inputs -------------------------------------------------------------------------------------


def _image_set(folder: Path, examples: int) -> Dataset:
    """JPEGs of img2dataset's default size, with smooth content like that of photos."""
    rng = np.random.default_rng(0)

    def one(i: int) -> tuple[str, dict[str, bytes]]:
        width, height = (256, 340) if i % 2 else (341, 256)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        photo = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = photo + rng.normal(0, 6, photo.shape).astype(np.int16)
        out = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=95)
        return f"{i:09d}", {"jpg": out.getvalue(), "txt": _caption(rng)}

    return _write_set(folder, map(one, range(examples)), examples, 128)


def _embedded_set(folder: Path, examples: int) -> Dataset:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG")
    pixel = out.getvalue()
    rows = ((f"{i:09d}", {"png": pixel, "txt": _caption(rng)}) for i in range(examples))
    dataset = _write_set(folder, rows, examples, _SHARD)
    to = folder / "embeddings" / "z"
    to.mkdir(parents=True)
    np.save(to / "train.npy", rng.normal(size=(examples, _DIM)).astype(np.float16))
    write_json(to / "tower.json", {"dim": _DIM, "dataset_fingerprint": dataset.fingerprint})
    return dataset


def _caption(rng: np.random.Generator) -> bytes:
    return " ".join(rng.choice(_WORDS.split(), 9)).encode()


def _write_set(
    folder: Path, rows: Iterator[tuple[str, dict[str, bytes]]], examples: int, shard: int
) -> Dataset:
    folder.mkdir(parents=True)
    for number, _ in enumerate(range(0, examples, shard)):
        write_shard(folder / f"{number:05d}.tar", itertools.islice(rows, shard))
    return index_shards(folder, train_pieces=200, workers=1).dataset
