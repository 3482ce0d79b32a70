"""The contact sheet shows the images of a split."""

import io

import numpy as np
from PIL import Image

from study.data.contact_sheet import draw_contact_sheet
from study.data.formats.open_split import open_split


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
