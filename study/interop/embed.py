"""Embeds images and texts with the towers of a checkpoint.

Embeddings have unit length and are not scaled by t, so any two implementations can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from study.config import Data
from study.config.data import Pad, Resize
from study.config.model import Vocabulary
from study.data.formats.dataset import DATASET_FILE, DataError, Dataset, read_lines
from study.data.formats.tar_index import IMAGE_NAMES
from study.data.formats.webdataset import WebdatasetReader
from study.data.images import decode
from study.data.parallel import ProgressFn, no_progress
from study.data.tokenizer import Tokenizer
from study.evals.encode import Encoder
from study.interop.infer_model import infer_model
from study.interop.load import load_params, split_spec
from study.interop.torch_state import hash_files

BATCH = 32


class FrozenTowers:
    """The towers of a checkpoint; also a `study.data.embed_shards.Tower`, its image tower.

    Arguments:
      spec: a file, or "FILE:img" or "FILE:txt" for one tower, see `load_params`.
      image_size: in pixels; needed if the checkpoint does not fix it.

    Attributes:
      pad: how texts of a released checkpoint were padded, else None.

    Raises:
      DataError: a file that cannot be read, or of an unknown model.
    """

    def __init__(self, spec: str | Path, *, image_size: int | None = None):
        # The module needs t, which an embedding does not use and a single tower does not have.
        self._spec, self._params = spec, {"t": np.zeros(1, np.float32)} | load_params(spec)
        self.model, self._channels, vocabulary, self.text_length, self.pad = infer_model(
            self._params, image_size=image_size
        )
        self._vocabulary = vocabulary or 0
        # The module needs ids of EOS and padding, which a transformer does not use.
        self._encoder = Encoder(
            self.model, Data(), Vocabulary(vocabulary or 1, eos=0, pad=0), size=BATCH
        )
        self._params = self._encoder.place(self._params)

    @property
    def size(self) -> int:
        return self._image_tower.image_size

    @property
    def channels(self) -> int:
        assert self._channels is not None
        return self._channels

    @property
    def dim(self) -> int:
        return self.model.embed_dim

    @property
    def metadata(self) -> dict[str, Any]:
        path, _ = split_spec(self._spec)
        tower = self._image_tower.variant
        return {"tower": tower, "checkpoint": path.name, "sha256": hash_files(path)}

    @property
    def _image_tower(self) -> Any:
        if "img" not in self._params:
            raise DataError(f"{self._spec} has no image tower")
        return self.model.image

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        """uint8 images of the tower's size, or floats in [-1, 1], to unit rows N x E."""
        expected = (self.size, self.size, self.channels)
        if images_NxHxWxC.shape[1:] != expected:
            shape = "x".join(map(str, images_NxHxWxC.shape))
            sizes = " x ".join(map(str, expected))
            raise DataError(f"{self._spec} takes images N x {sizes}, these are {shape}")
        if images_NxHxWxC.dtype != np.uint8:
            images_NxHxWxC = images_NxHxWxC.astype(np.float32)
        return self._encoder.embed_pixels(self._params, images_NxHxWxC)

    def images(
        self, source: str | Path, *, resize: Resize = "bicubic", progress: ProgressFn = no_progress
    ) -> np.ndarray:
        """Unit embeddings of all images of a source, in its order: float32 `NxE`.

        Arguments:
          source: a folder of images or of webdataset tars (in the order of their names), one tar,
            a data set, or a `.npy` of uint8 or of floats in [-1, 1].
          resize: how images of another size than the tower's are resized, to a square; see
            `study.data.images.decode`.
        """
        count, read = _open_images(
            Path(source), size=self.size, channels=self.channels, resize=resize
        )
        rows = []
        for start in range(0, count, BATCH):
            stop = min(start + BATCH, count)
            rows.append(self(read(range(start, stop))))
            progress("images", stop, count)
        return np.concatenate(rows)

    def texts(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        pad: Pad | None = None,
    ) -> np.ndarray:
        """Unit embeddings of all texts of a source, in its order: float32 `MxE`.

        Tokens are made as in big_vision: ASCII letters in lower case, one EOS, then padding.

        Arguments:
          source: a UTF-8 file with one text per line, or a `.npy` of tokens `MxL`.
          tokenizer: the SentencePiece model; needed for texts.
          pad: the padding after EOS; by default as the checkpoint was trained, or "eos" if it is
            not a released one.
        """
        if "txt" not in self._params:
            raise DataError(f"{self._spec} has no text tower")
        assert self.text_length is not None
        tokens_NxL = _read_tokens(
            Path(source), tokenizer, self.text_length, pad or self.pad or "eos"
        )
        length, most = tokens_NxL.shape[1], int(tokens_NxL.max())
        if length != self.text_length or tokens_NxL.min() < 0 or most >= self._vocabulary:
            raise DataError(
                f"{source}: {self._spec} takes {self.text_length} tokens below "
                f"{self._vocabulary}, these are {length}, up to {most}; use its own tokenizer"
            )
        return self._encoder.embed_texts(self._params, tokens_NxL)


def _open_images(
    source: Path, *, size: int, channels: int, resize: Resize
) -> tuple[int, Callable[[range], np.ndarray]]:
    """The number of images, and a function that reads a range of them."""
    if source.suffix == ".npy":
        array = _load_npy(source)
        if array.ndim != 4 or array.dtype.kind not in "fu" or not len(array):
            raise DataError(f"{source} must hold images N x H x W x C, uint8 or float")
        return len(array), lambda rows: np.asarray(array[rows.start : rows.stop])
    if (source / DATASET_FILE).is_file():
        shards = [s for split in Dataset.open(source).splits.values() for s in split.shards]
    else:
        shards = [source] if source.suffix == ".tar" else sorted(source.glob("*.tar"))
    if shards:
        reader = WebdatasetReader(shards)
        return len(reader), lambda rows: reader.read_images(
            rows, size=size, channels=channels, resize=resize
        )
    try:
        paths = sorted(p for p in source.iterdir() if p.suffix.lower().lstrip(".") in IMAGE_NAMES)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; give a folder of images") from None
    if not paths:
        raise DataError(
            f"{source} has no image ({', '.join(IMAGE_NAMES)}) and no .tar; give a folder of "
            "images, webdataset shards or a .npy"
        )

    def read_files(rows: range) -> np.ndarray:
        return np.stack([_decode_file(paths[i], size, channels, resize) for i in rows])

    return len(paths), read_files


def _decode_file(path: Path, size: int, channels: int, resize: Resize) -> np.ndarray:
    try:
        return decode(path.read_bytes(), size=size, channels=channels, resize=resize)
    except Exception as error:  # PIL raises many types, even SyntaxError
        raise DataError(f"cannot decode {path} ({error}); remove or replace it") from None


def _read_tokens(source: Path, tokenizer: str | Path | None, length: int, pad: Pad) -> np.ndarray:
    if source.suffix == ".npy":
        tokens_NxL = _load_npy(source)
        if tokens_NxL.ndim != 2 or tokens_NxL.dtype.kind not in "iu" or not tokens_NxL.size:
            raise DataError(f"{source} must hold tokens N x L, integers")
        return np.asarray(tokens_NxL, np.int32)
    if tokenizer is None:
        raise DataError(f"{source} is text: give the checkpoint's SentencePiece model as tokenizer")
    try:
        lines = read_lines(source)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; give a file of UTF-8 text") from None
    if not lines:
        raise DataError(f"{source} has no text; write one on each line")
    return Tokenizer(tokenizer, length, lower_case="ascii", pad=pad)(lines)


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable .npy file ({error})") from None
