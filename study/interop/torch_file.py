"""Reads the tensors of a PyTorch file in the format before 1.6, without PyTorch.

The file is a row of pickles (a magic number, the protocol, facts about the machine, the object,
the keys of its storages), then the raw numbers of each storage. Unpickling can run any code, so
the names that a pickle may use are limited to those of a state dict.
"""

from __future__ import annotations

import collections
import dataclasses
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from study.data.formats.dataset import DataError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    size: int

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage: in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, data: np.ndarray) -> np.ndarray:
        """The numbers of this tensor as a new array, C-contiguous."""
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        least = min((self.offset, *self.shape, *self.strides), default=0)
        if least < 0 or (0 not in self.shape and last >= len(data)):
            raise ValueError("a tensor reaches outside its storage")
        item = data.itemsize
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, [step * item for step in self.strides]
        )
        return np.ascontiguousarray(view).reshape(self.shape)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name.

    Raises:
      DataError: a file of another format, or one with anything but tensors of float32 and int64.
    """
    try:
        with path.open("rb") as file:
            tensors, storages = _read(file)
        return {str(name): tensor.of(storages[tensor.storage]) for name, tensor in tensors.items()}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give another file") from None
    except Exception as error:  # a damaged pickle raises nearly any kind
        raise DataError(
            f"{path} is not a state dict in PyTorch's format before 1.6 "
            f"({' '.join(str(error).split())}); give another file"
        ) from None


def _read(file: IO[bytes]) -> tuple[dict[Any, _Tensor], dict[_Storage, np.ndarray]]:
    if (_Plain(file).load(), _Plain(file).load()) != (MAGIC, PROTOCOL):
        raise ValueError("another magic number or protocol")
    if not _Plain(file).load()["little_endian"]:
        raise ValueError("big-endian numbers")
    unpickler = _StateDict(file)
    tensors = unpickler.load()
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ValueError("not a dict of tensors")
    keys = _Plain(file).load()
    if set(keys) != set(unpickler.storages):
        raise ValueError("the tensors and the numbers after them do not match")
    arrays = {}
    for key in keys:
        storage = unpickler.storages[key]
        header = file.read(8)
        data = file.read(storage.nbytes)
        if header != storage.size.to_bytes(8, "little") or len(data) != storage.nbytes:
            raise ValueError(f"the storage {key} is cut short")
        arrays[storage] = np.frombuffer(data, storage.dtype)
    return tensors, arrays


class _Plain(pickle.Unpickler):
    """Numbers, texts, and containers of them."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"it uses {module}.{name}, which is not allowed")


class _StateDict(_Plain):
    """Ordered dicts of tensors."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "torch", _ if name in _STORAGES:
                return _STORAGES[name]
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, size, view = pid
        if kind != "storage" or view is not None:
            raise ValueError(f"it refers to a {kind} of an unknown form")
        return self.storages.setdefault(key, _Storage(key, dtype, size))


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: bool,
    _hooks: Any,
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)
