"""Decoding: what a person sees, squeezed to a square, by one of two filters."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from study.data.images import FORMATS, count_channels, decode


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


# --- what cannot be used, and what is unusual ----------------------------------------------------


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    """A grayscale PNG with these chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", pixels or zlib.compress(bytes(height * (width + 1))))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *more, data, chunk(b"IEND", b"")))


def zeros(mib: int) -> bytes:
    """Compressed zeros, about a thousandth of their size."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mib)) + packer.flush()


def declared(kind: str, width: int, height: int) -> bytes:
    """A file of a few hundred bytes whose header declares this size."""
    if kind == "PNG":
        return png_of(width, height, pixels=zlib.compress(bytes(100)))
    data = bytearray(encoded(Image.new("RGB", (16, 16)), kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "WEBP":
        at = data.index(b"\x9d\x01\x2a") + 3
        data[at : at + 4] = struct.pack("<HH", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    else:
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize("tail", [b"\n", b"trailing", bytes(64)])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_bytes_after_the_end_of_a_png_are_ignored(tail, mode, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, channels), dtype=np.uint8)
    data = png(Image.fromarray(pixels.squeeze()))
    np.testing.assert_array_equal(decode(data + tail, size=8, channels=channels), pixels)


def test_a_png_with_a_changed_bit_is_refused():
    whole = png_of(8, 8)
    for byte in range(8, len(whole) - 12):  # to its last chunk, which is empty
        damaged = bytearray(whole)
        damaged[byte] ^= 1
        with pytest.raises((OSError, ValueError, SyntaxError)):
            decode(bytes(damaged), size=8, channels=1)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_that_declares_too_many_pixels_is_refused(kind):
    with pytest.raises(ValueError, match="declares 16000 x 5000 pixels, more than 67,108,864"):
        decode(declared(kind, 16_000, 5_000), size=8, channels=1)
    with pytest.raises(ValueError, match="declares"):
        count_channels(declared(kind, 16_000, 5_000))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(kind, share):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(data[: int(share * len(data))], size=64, channels=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_an_image_without_pixels_is_refused(kind):
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(declared(kind, 0, 16), size=8, channels=1)


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "PPM"])
def test_other_formats_are_not_opened(kind):
    with pytest.raises(OSError, match="cannot identify"):
        decode(encoded(Image.new("RGB", (8, 8)), kind), size=8, channels=3)


def test_sixteen_bit_grayscale_keeps_its_range():
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    got = decode(png(Image.fromarray(levels)), size=8, channels=1)
    np.testing.assert_array_equal(got[..., 0], levels >> 8)


def test_a_palette_is_looked_up_and_cmyk_is_converted():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = (250, 20, 30)
    colour = Image.fromarray(pixels)
    for data in (png(colour.quantize(4)), encoded(colour, "GIF")):
        np.testing.assert_array_equal(decode(data, size=8, channels=3), pixels)
    got = decode(encoded(colour.convert("CMYK"), "JPEG", quality=95), size=8, channels=3)
    assert np.abs(got.astype(int) - pixels).max() < 24


_MEMORY = """
import resource, sys
from study.data.images import decode
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
decode(open(sys.argv[1], "rb").read(), size=24, channels=1)
before = most()
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    for channels in (1, 3):
        try:
            decode(data, size=24, channels=channels)
        except Exception:
            pass
print(most() - before)
"""


def test_what_inflates_without_bound_takes_little_memory(tmp_path):
    """Each file is below 1 MiB and inflates to 400 MiB or more where nothing bounds it."""
    bomb, small = zeros(400), zeros(1)
    text = [chunk(b"zTXt", b"a%d\0\0" % i + small) for i in range(400)]
    files = {
        "fine": png_of(24, 24),
        "pixels": png_of(24, 24, pixels=bomb),
        "large": png_of(20_000, 20_000, pixels=bomb),
        "ztxt": png_of(24, 24, chunk(b"zTXt", b"a\0\0" + bomb)),
        "many": png_of(24, 24, *text),
        "itxt": png_of(24, 24, chunk(b"iTXt", b"a\0\x01\0\0\0" + bomb)),
        "iccp": png_of(24, 24, chunk(b"iCCP", b"a\0\0" + bomb)),
        **{kind: declared(kind, 16_000, 16_000) for kind in FORMATS},
    }
    for name, data in files.items():
        assert len(data) < 1 << 20
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, *paths], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200  # MiB
