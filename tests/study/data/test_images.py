"""Decoding: what a person sees, squeezed to a square, by one of two filters."""

import io

import numpy as np
import pytest
from PIL import Image

from study.data.images import decode


def png(image: Image.Image, **more) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **more)
    return out.getvalue()


def test_bilinear_is_without_antialiasing_at_pixel_centres():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 24, 3), dtype=np.uint8)
    got = decode(png(Image.fromarray(pixels)), size=16, channels=3, resize="bilinear")
    y, x = ((np.arange(16) + 0.5) * side / 16 - 0.5 for side in pixels.shape[:2])
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    at = lambda dy, dx: pixels[np.ix_(np.clip(y0 + dy, 0, 39), np.clip(x0 + dx, 0, 23))]
    top = at(0, 0) * (1 - fx) + at(0, 1) * fx
    bottom = at(1, 0) * (1 - fx) + at(1, 1) * fx
    assert np.abs(got - (top * (1 - fy) + bottom * fy)).max() <= 1


@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
def test_an_image_of_the_right_size_is_left_alone(resize):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = png(Image.fromarray(pixels))
    np.testing.assert_array_equal(decode(data, size=8, channels=3, resize=resize), pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    nothing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    more = {"transparency": b"\0"} if mode == "P" else {}
    data = png(Image.new("P", (8, 8)) if mode == "P" else nothing.convert(mode), **more)
    assert (decode(data, size=4, channels=3) == 255).all()
