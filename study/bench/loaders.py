"""Ways to load image-text data, to be timed against each other: ours, and what else one would pick.

A contender is a generator of batches without end, `image` and `text`, all of the same work: decode,
resize, tokenize with one SentencePiece model, batches of one size. `main` runs one in a process of
its own, so that no other shares its memory, threads and imports.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Batch = dict[str, Any]
SHUFFLE_BUFFER = 1000  # webdataset's documentation shuffles so
WARM_UP = 1024  # examples; webdataset's buffer is then full
_CHUNKS = 100_000  # more than any bench takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The examples to load, in the formats that the contenders read.

    Attributes:
      dataset: the folder of the data set, local or in a bucket.
      tars: of images, or of embeddings as .npy members: paths or URLs.
      array_records: files with the images of `tars`.
      rows, tokens: .npy files, embeddings and tokens; empty for images.
      tokenizer: a SentencePiece model.
      examples: how many there are.
      image_size: in pixels; 0 for embeddings.
      dim: width of the embeddings; 0 for images.
      block, open_blocks: `study.config.Blocks`, small enough for a round to take several windows.
      workers: threads or processes of a contender.
    """

    dataset: str
    tars: tuple[str, ...]
    array_records: tuple[str, ...] = ()
    rows: str = ""
    tokens: str = ""
    tokenizer: str = ""
    examples: int
    image_size: int = 0
    dim: int = 0
    batch_size: int
    text_length: int = 16
    block: int
    open_blocks: int
    workers: int = 1


# --- ours ---------------------------------------------------------------------------------------


def ours_global(inputs: Inputs) -> Iterator[Batch]:
    """Ours, global order."""
    from study.config import Global

    return _ours(inputs, Global())


def ours_blocks(inputs: Inputs) -> Iterator[Batch]:
    """Ours, blocks order."""
    from study.config import Blocks

    return _ours(inputs, Blocks(size=inputs.block, open=inputs.open_blocks))


def _ours(inputs: Inputs, kind: Any) -> Iterator[Batch]:
    from study.config import CachedImage, Data, ViT
    from study.data import cache
    from study.data.files import to_path
    from study.data.formats.dataset import Dataset
    from study.data.order import Order
    from study.data.sources import open_source
    from study.data.stream import batches

    data = Data(text_length=inputs.text_length, order=kind)
    dataset = Dataset.open(to_path(inputs.dataset))
    image: Any = ViT(image_size=inputs.image_size) if inputs.image_size else None
    image = image or CachedImage(embeddings="z", dim=inputs.dim)
    with cache.nothing_in_memory():
        source = open_source(dataset, "train", image, data, threads=inputs.workers)
    # As many as travel to the devices together (`Execution.chunk_examples`), if they are small.
    steps = max(1, 8192 // inputs.batch_size) if inputs.dim else 1
    chunks = batches(
        source,
        seed=0,
        batch_size=inputs.batch_size,
        first_step=0,
        chunks=[steps] * _CHUNKS,
        order=Order.of([source.size], seed=0, kind=kind),
    )
    return (
        {name: array[k] for name, array in chunk.items()} for chunk in chunks for k in range(steps)
    )


# --- the work on one example --------------------------------------------------------------------


@functools.cache
def _tokenizer(model: str) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=model)


def tokenize(text: str, *, model: str, length: int) -> np.ndarray:
    """Lower case, cut, padded with EOS: int32 `length`."""
    pieces = _tokenizer(model)
    ids = pieces.encode(text.lower())[: length - 1]
    return np.array(ids + [pieces.eos_id()] * (length - len(ids)), np.int32)


def resize(image: Any, *, size: int) -> np.ndarray:
    """A PIL image as uint8 size x size x 3."""
    from PIL import Image

    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def _functions(inputs: Inputs) -> tuple[Callable[[Any], np.ndarray], Callable[[str], np.ndarray]]:
    to_pixels = functools.partial(resize, size=inputs.image_size)
    model, length = inputs.tokenizer, inputs.text_length
    return to_pixels, functools.partial(tokenize, model=model, length=length)


# --- webdataset and PyTorch ---------------------------------------------------------------------


def webdataset(inputs: Inputs) -> Iterator[Batch]:
    """webdataset, shuffle(1000), PyTorch's DataLoader."""
    import torch
    import webdataset as wds

    to_pixels, to_tokens = _functions(inputs)
    shards = wds.WebDataset(list(inputs.tars), shardshuffle=100, seed=0)
    examples = shards.repeat().shuffle(SHUFFLE_BUFFER)
    if inputs.dim:
        pairs = examples.decode().to_tuple("npy", "txt").map_tuple(_same, to_tokens)
    else:
        pairs = examples.decode("pil").to_tuple("jpg", "txt").map_tuple(to_pixels, to_tokens)
    loader = torch.utils.data.DataLoader(
        pairs.batched(inputs.batch_size), batch_size=None, num_workers=inputs.workers
    )
    for image, text in loader:
        yield {"image": image, "text": text}


def _same(value: Any) -> Any:
    return value


class Rows:
    """Memory-mapped embeddings and tokens, example by example."""

    def __init__(self, inputs: Inputs):
        self.rows_NxE = np.load(inputs.rows, mmap_mode="r")
        self.tokens_NxL = np.load(inputs.tokens, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows_NxE)

    def __getitem__(self, i: int) -> Batch:
        return {"image": np.array(self.rows_NxE[i]), "text": np.array(self.tokens_NxL[i])}


def torch_rows(inputs: Inputs) -> Iterator[Batch]:
    """PyTorch's DataLoader over np.memmap."""
    import torch

    loader: Any = torch.utils.data.DataLoader(
        Rows(inputs),
        batch_size=inputs.batch_size,
        shuffle=True,
        num_workers=inputs.workers,
        drop_last=True,
    )
    for _ in itertools.count():
        yield from loader


def memmap(inputs: Inputs) -> Iterator[Batch]:
    """np.memmap, random rows."""
    rows = Rows(inputs)
    rng = np.random.default_rng(0)
    while True:
        order_N = rng.permutation(len(rows))
        for start in range(0, len(rows) - inputs.batch_size + 1, inputs.batch_size):
            index_B = order_N[start : start + inputs.batch_size]
            yield {"image": rows.rows_NxE[index_B], "text": rows.tokens_NxL[index_B]}


# --- Grain --------------------------------------------------------------------------------------


def grain_threads(inputs: Inputs) -> Iterator[Batch]:
    """Grain, ArrayRecord, threads."""
    return iter(_grain_images(inputs).batch(inputs.batch_size, drop_remainder=True))


def grain_processes(inputs: Inputs) -> Iterator[Batch]:
    """Grain, ArrayRecord, mp_prefetch."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain's processes read its flags, as in a program of absl's
    examples = _grain_images(inputs).batch(inputs.batch_size, drop_remainder=True)
    return iter(examples.mp_prefetch(grain.MultiprocessingOptions(num_workers=inputs.workers)))


def grain_rows(inputs: Inputs) -> Iterator[Batch]:
    """Grain over np.memmap, example by example."""
    import grain

    examples = grain.MapDataset.source(Rows(inputs)).shuffle(seed=0).repeat().to_iter_dataset()
    return iter(examples.batch(inputs.batch_size, drop_remainder=True))


def _grain_images(inputs: Inputs) -> Any:
    import grain

    records = grain.sources.ArrayRecordDataSource(list(inputs.array_records))
    parse = functools.partial(_parse_record, inputs=inputs)
    return grain.MapDataset.source(records).shuffle(seed=0).repeat().map(parse).to_iter_dataset()


def _parse_record(record: bytes, *, inputs: Inputs) -> Batch:
    from PIL import Image

    from study.data.formats.array_record import example_class

    to_pixels, to_tokens = _functions(inputs)
    features = example_class().FromString(record).features.feature
    image = Image.open(io.BytesIO(features["image"].bytes_list.value[0]))
    text = features["caption"].bytes_list.value[0].decode()
    return {"image": to_pixels(image), "text": to_tokens(text)}


# --- the first loader one would write -----------------------------------------------------------


def loop(inputs: Inputs) -> Iterator[Batch]:
    """A loop over tarfile and PIL, unshuffled."""
    from PIL import Image

    to_pixels, to_tokens = _functions(inputs)
    images, texts = [], []
    for tar in itertools.cycle(inputs.tars):
        with tarfile.open(tar) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                if member.name.endswith(".txt"):
                    texts.append(to_tokens(stream.read().decode()))
                else:
                    images.append(to_pixels(Image.open(io.BytesIO(stream.read()))))
                if len(images) == len(texts) == inputs.batch_size:
                    yield {"image": np.stack(images), "text": np.stack(texts)}
                    images, texts = [], []


CONTENDERS: dict[str, Callable[[Inputs], Iterator[Batch]]] = {
    function.__name__: function
    for function in (
        ours_global,
        ours_blocks,
        loop,
        webdataset,
        grain_threads,
        grain_processes,
        memmap,
        grain_rows,
        torch_rows,
    )
}


# --- one contender as a program -----------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a contender for some seconds at a time; it stops itself before each time.

    Prints a JSON line when it is ready, and after each time: examples and seconds. Whoever started
    it sends SIGCONT to it and its children. A stopped loader keeps its buffers as they are in the
    middle of a run, and takes no time from others.
    """
    name, text, seconds = argv or sys.argv[1:]
    inputs = Inputs(**json.loads(text))
    stream = CONTENDERS[name](inputs)
    examples = 0
    while examples < min(WARM_UP, inputs.examples):
        examples += len(next(stream)["text"])
    _print_and_stop({"ready": True})
    while True:
        examples, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < float(seconds):
            examples += len(next(stream)["text"])
        _print_and_stop({"examples": examples, "seconds": passed})


def _print_and_stop(result: dict[str, Any]) -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.suspend()
    print(json.dumps(result), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
