"""A bucket in memory, as strict as a real one: `bucket://...` for fsspec.

For what the server of `study.bench.gcs_server` cannot do: objects of a chosen age, writes that
fail, counts of requests within this process.

Objects appear whole when a write ends. There is no append, no rename and no folder: a prefix is
listed while an object has it. Create-if-absent is atomic.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, ClassVar

import fsspec
import upath.registry
from upath.implementations.cloud import CloudPath

import study.records.storage


class Strict(fsspec.AbstractFileSystem):
    protocol = "bucket"
    cachable = True
    objects: ClassVar[dict[str, tuple[bytes, float]]] = {}
    requests: ClassVar[Counter[str]] = Counter()
    broken: ClassVar[list[Exception]] = []  # raised by writes, the first one first
    lock: ClassVar[threading.RLock] = threading.RLock()

    @classmethod
    def clear(cls) -> None:
        cls.objects.clear()
        cls.requests.clear()
        cls.broken.clear()

    @classmethod
    def aged(cls, path: str, seconds: float) -> None:
        """Makes the last write of an object `seconds` old."""
        name = cls._strip_protocol(path)
        cls.objects[name] = (cls.objects[name][0], time.time() - seconds)

    def _put(self, path: str, content: bytes, *, create: bool) -> None:
        name = self._strip_protocol(path)
        with self.lock:
            self.requests["write"] += 1
            if self.broken:
                raise self.broken.pop(0)
            if create and name in self.objects:
                raise FileExistsError(path)
            self.objects[name] = (bytes(content), time.time())

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._put(path, value, create=mode == "create")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        self.requests["read"] += 1
        try:
            return self.objects[self._strip_protocol(path)][0][start:end]
        except KeyError:
            raise FileNotFoundError(path) from None

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        if mode not in ("wb", "xb"):
            raise NotImplementedError(f"a bucket cannot open in mode {mode}")
        return _Upload(self, path, create=mode == "xb")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        self.requests["list"] += 1
        name = self._strip_protocol(path)
        if name in self.objects:
            found = {name: self._entry(name)}
        else:
            found = {}
            for key in list(self.objects):
                if key.startswith(f"{name}/"):
                    child = f"{name}/{key.removeprefix(f'{name}/').partition('/')[0]}"
                    found[child] = self._entry(child)
            if not found:
                raise FileNotFoundError(path)
        return [found[key] if detail else key for key in sorted(found)]

    def _entry(self, name: str) -> dict[str, Any]:
        if name in self.objects:
            return {"name": name, "size": len(self.objects[name][0]), "type": "file"}
        return {"name": name, "size": 0, "type": "directory"}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self.requests["info"] += 1
        name = self._strip_protocol(path)
        if name in self.objects or any(key.startswith(f"{name}/") for key in list(self.objects)):
            return self._entry(name)
        raise FileNotFoundError(path)

    def modified(self, path: str) -> datetime:
        try:
            return datetime.fromtimestamp(self.objects[self._strip_protocol(path)][1], UTC)
        except KeyError:
            raise FileNotFoundError(path) from None

    def rm_file(self, path: str) -> None:
        self.requests["remove"] += 1
        try:
            del self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    _rm = rm_file

    def rm(self, path: str, recursive: bool = False, maxdepth: Any = None) -> None:
        assert not recursive, "a bucket has no folder to remove"
        self.rm_file(path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        raise PermissionError("a bucket has no folders")

    makedirs = mkdir

    def mv(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a bucket cannot rename")

    def cp_file(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("no test copies")


class _Upload(io.BytesIO):
    """Becomes an object when it is closed without an error."""

    def __init__(self, system: Strict, path: str, *, create: bool):
        super().__init__()
        self._to = (system, path, create)

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is None:
            self.close()
        else:
            super().close()

    def close(self) -> None:
        if not self.closed:
            system, path, create = self._to
            system._put(path, self.getvalue(), create=create)
        super().close()


fsspec.register_implementation("bucket", Strict, clobber=True)


class _Path(CloudPath):
    """Of the kind that gs:// is."""


upath.registry.register_implementation("bucket", _Path, clobber=True)
study.records.storage.SCHEMES.add("bucket")
