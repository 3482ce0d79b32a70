"""The contact sheet shows the images of a split."""

import io
import json

import numpy as np
from PIL import Image

from study.data.contact_page import draw_contact_page
from study.data.contact_sheet import draw_contact_sheet
from study.data.formats.dataset import CLASS_NAMES, TEMPLATES, write_lines, write_manifest
from study.data.formats.open_split import open_split
from study.data.formats.webdataset import write_shard


def test_the_first_image_is_on_the_page_with_square_pixels(small):
    page = np.asarray(Image.open(io.BytesIO(draw_contact_sheet(small, "train", 2, 3))).convert("L"))
    first = open_split(small, "train").read_images([0], size=24, channels=1)[0, ..., 0]
    enlarged = first.repeat(5, 0).repeat(5, 1)
    windows = np.lib.stride_tricks.sliding_window_view(page[:200, :200], enlarged.shape)
    assert (windows == enlarged).all((-1, -2)).any()


def test_more_places_than_examples_leave_white(small):
    count = small.split("val_font").examples
    page = Image.open(io.BytesIO(draw_contact_sheet(small, "val_font", count // 10 + 3, 10)))
    assert np.asarray(page)[-60:].min() == 255


def test_a_page_for_a_browser_has_the_captions_of_each_language(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (240, 60), "red").save(image, "PNG")
    metadata = {"captions": {"he": ["<חתול>"], "hi": ["बिल्ली", "बिल्ला"]}}
    members = {"png": image.getvalue(), "txt": b"cat", "json": json.dumps(metadata).encode()}
    write_shard(tmp_path / "test-0.tar", [("0", members), ("1", members | {"png": b"no image"})])
    for name in (CLASS_NAMES, TEMPLATES):
        write_lines(tmp_path / name, [])
    dataset = write_manifest(tmp_path, name="cats", splits={"test": (["test-0.tar"], 2)}, recipe={})
    page = draw_contact_page(dataset, "test", 1, 2, languages=("hi", "he", "fr"))
    lines = ["बिल्ली", "बिल्ला", "&lt;חתול&gt;"]
    places = [page.index(line) for line in lines]
    assert places == sorted(places) and '<bdi lang="he">' in page
    assert page.count("<img") == 1 and "its image does not decode" in page
    assert ">cat</bdi>" in draw_contact_page(dataset, "test", 1, 1)
