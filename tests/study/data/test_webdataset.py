"""Shards: written the same, read as written, and damage is named."""

import concurrent.futures
import io
import json
import os
import tarfile
import threading
import time

import numpy as np
import pytest
from PIL import Image

from study.data.formats import tar_index
from study.data.formats.dataset import DataError
from study.data.formats.open_split import open_split
from study.data.formats.reader import BadExampleError
from study.data.formats.tar_index import load_or_scan
from study.data.formats.webdataset import WebdatasetReader, file_header, write_shard

rng = np.random.default_rng(0)


def encoded(kind: str, mode: str = "RGB", size=(30, 20)) -> bytes:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels).save(out, kind)
    return out.getvalue()


def examples(count: int, start: int = 0, **more):
    return [
        (
            f"{i:09d}",
            {
                "png": encoded("PNG", "L"),
                "txt": f"text {i} é".encode(),
                "json": json.dumps({"class": i}).encode(),
            },
        )
        for i in range(start, start + count)
    ]


def test_what_is_written_is_read_in_order(tmp_path):
    first, second = examples(5), examples(3, start=5)
    write_shard(tmp_path / "a.tar", first)
    write_shard(tmp_path / "b.tar", second)
    reader = WebdatasetReader([tmp_path / "a.tar", tmp_path / "b.tar"])
    assert len(reader) == 8
    for i, (key, members) in enumerate(first + second):
        assert reader[i] == {
            "key": key,
            "image": members["png"],
            "text": members["txt"].decode(),
            "json": {"class": i},
        }
    for outside in (-1, 8):
        with pytest.raises(IndexError):
            reader[outside]


def test_the_tar_is_what_any_tar_program_reads(tmp_path):
    write_shard(tmp_path / "a.tar", examples(3))
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
        kinds = ("png", "txt", "json")
        assert [m.name for m in members] == [f"{i:09d}.{kind}" for i in range(3) for kind in kinds]
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in members} == {(0, 0, 0, 0o644)}
        assert archive.extractfile("000000001.txt").read() == "text 1 é".encode()


def test_headers_are_those_of_tarfile():
    for name in ("0.png", "é/ü.json", 96 * "x" + ".txt", 90 * "d" + "/" + 90 * "x"):
        for size in (0, 511, 8**11 - 1):
            member = tarfile.TarInfo(name)
            member.size = size
            assert file_header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_the_written_index_is_the_one_that_a_scan_finds(small):
    shard = small.split("val_font").shards[0]
    written = load_or_scan(shard)
    index_file = shard.with_name(shard.name + ".index.npz")
    stamp = index_file.stat().st_mtime_ns
    index_file.unlink()
    scanned = load_or_scan(shard)
    assert index_file.stat().st_mtime_ns != stamp
    for name in ("keys_N", "offsets_Nx3", "sizes_Nx3"):
        np.testing.assert_array_equal(getattr(written, name), getattr(scanned, name))


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_tars_of_other_programs_are_read(tmp_path, kind):
    """As img2dataset writes them; long names, folders and members without meaning included."""
    image = encoded({"jpg": "JPEG"}.get(kind, kind.upper()))
    key = "folder.v2/" + "k" * 120
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in [
            (f"{key}.{kind.upper()}", image),
            (f"{key}.txt", b"a text"),
            (f"{key}.cls", b"7"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    reader = WebdatasetReader([tmp_path / "a.tar"])
    assert reader[0] == {"key": key, "image": image, "text": "a text", "json": {}}
    assert reader.channels() == 3
    assert reader.read_images([0], size=16, channels=3).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_the_ones_that_pil_decodes(tmp_path, mode):
    image = encoded("PNG", mode, size=(24, 24))
    write_shard(tmp_path / "a.tar", [("k", {"png": image, "txt": b"", "json": b"{}"})])
    reader = WebdatasetReader([tmp_path / "a.tar"])
    channels = 1 if mode == "L" else 3
    assert reader.channels() == channels
    page = Image.open(io.BytesIO(image))
    pil = np.asarray(page.convert("L" if channels == 1 else "RGB"))
    pixels = reader.read_images([0, 0], size=24, channels=channels)
    np.testing.assert_array_equal(pixels[1], pil.reshape(24, 24, channels))


def test_threads_scan_each_tar_once_and_two_tars_at_the_same_time(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", examples(4))
    paths, both = [tmp_path / "a.tar", tmp_path / "b.tar"], threading.Barrier(2)
    scans = []

    def scan(path, cache=None, stat=None):
        scans.append(path)
        both.wait(timeout=30)  # until the other tar is scanned as well
        time.sleep(0.2)  # and all threads have come
        return load_or_scan(path, cache)

    monkeypatch.setattr(tar_index, "load_or_scan", scan)
    reader = WebdatasetReader(paths, counts=[4, 4])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(reader.key, [0, 4, 1, 5, 2, 6, 3, 7]))
    assert sorted(scans) == paths
    assert keys == [f"{i:09d}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]


def test_threads_share_a_reader(small):
    reader = open_split(small, "train")
    expected = [e["text"] for e in open_split(small, "train")]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.text, range(len(reader)))) == expected


def test_a_read_only_folder_only_costs_time(small, tmp_path, monkeypatch):
    shard = tmp_path / "a.tar"
    shard.write_bytes(small.split("val_font").shards[0].read_bytes())

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "savez", refuse)
    assert len(WebdatasetReader([shard])) == small.split("val_font").examples
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_an_index_of_another_tar_is_made_again(tmp_path):
    write_shard(tmp_path / "a.tar", examples(5))
    stale = (tmp_path / "a.tar.index.npz").read_bytes()
    write_shard(tmp_path / "a.tar", examples(2))
    (tmp_path / "a.tar.index.npz").write_bytes(stale)
    assert len(WebdatasetReader([tmp_path / "a.tar"])) == 2
    (tmp_path / "a.tar.index.npz").write_bytes(stale[: len(stale) // 2])
    assert len(WebdatasetReader([tmp_path / "a.tar"])) == 2


# --- damage -------------------------------------------------------------------------------------


def test_a_truncated_tar_is_named(tmp_path):
    tar = tmp_path / "a.tar"
    write_shard(tar, examples(20))
    size = tar.stat().st_size
    # Without the end of the last member, at the start of a block, inside a block, empty.
    for left in (size - 1025, size // 2 // 512 * 512, size * 3 // 10, 0):
        os.truncate(tar, left)
        with pytest.raises(DataError, match=r"a\.tar.*(truncated|damaged).*--force") as error:
            WebdatasetReader([tar])
        assert "\n" not in str(error.value)


def test_a_tar_truncated_while_it_is_read_is_named(tmp_path):
    tar = tmp_path / "a.tar"
    write_shard(tar, examples(20))
    reader = WebdatasetReader([tar])
    os.truncate(tar, tar.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.tar: 000000019: the tar ends"):
        reader.image(19)


def test_flipped_bytes_in_a_header_are_named(tmp_path):
    tar = tmp_path / "a.tar"
    write_shard(tar, examples(20))
    data = bytearray(tar.read_bytes())
    offset = int(load_or_scan(tar).offsets_Nx3[9, 0])
    data[offset - 512 : offset - 480] = bytes(32)
    tar.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.tar is truncated or damaged at byte {offset - 512}"):
        WebdatasetReader([tar])


@pytest.mark.parametrize("at", [0, 10, 20, 100, -6])
def test_flipped_bytes_in_an_image_are_named(tmp_path, at):
    """Any byte of a PNG: signature, header, pixels, checksum."""
    tar = tmp_path / "a.tar"
    write_shard(tar, examples(20))
    index = load_or_scan(tar)
    start, size = int(index.offsets_Nx3[9, 0]), int(index.sizes_Nx3[9, 0])
    data = bytearray(tar.read_bytes())
    data[start + at % size] ^= 0x40
    tar.write_bytes(data)
    reader = WebdatasetReader([tar])
    reader.read_images([8, 10], size=24, channels=1)
    with pytest.raises(DataError, match=r"a\.tar: 000000009: its image does not decode") as error:
        reader.read_images([8, 9, 10], size=24, channels=1)
    assert "--force" in str(error.value)


@pytest.mark.parametrize(("column", "what"), [(1, "UTF-8"), (2, "JSON")])
def test_flipped_bytes_in_text_or_metadata_are_named(tmp_path, column, what):
    tar = tmp_path / "a.tar"
    write_shard(tar, examples(3))
    start = int(load_or_scan(tar).offsets_Nx3[1, column])
    data = bytearray(tar.read_bytes())
    data[start] = 0xFF
    tar.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.tar: 000000001: .*{what}"):
        WebdatasetReader([tar])[1]


@pytest.mark.parametrize("missing", ["png", "txt"])
def test_an_example_without_image_or_text_is_named_when_it_is_read(tmp_path, missing):
    tar = tmp_path / "a.tar"
    broken = examples(3)
    del broken[1][1][missing]
    write_shard(tar, broken)
    (tmp_path / "a.tar.index.npz").unlink()
    reader = WebdatasetReader([tar])
    assert (reader[0]["key"], reader[2]["key"]) == ("000000000", "000000002")
    with pytest.raises(BadExampleError, match=r"a\.tar: 000000001: it has no (image|text)"):
        reader[1]


def test_a_missing_tar_is_named(tmp_path):
    with pytest.raises(DataError, match=r"b\.tar: No such file"):
        WebdatasetReader([tmp_path / "b.tar"])


def test_a_full_disk_leaves_no_half_tar(tmp_path, monkeypatch):
    def torn():
        yield from examples(2)
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot write .*a\.tar: No space left.*run again"):
        write_shard(tmp_path / "a.tar", torn())
    assert not list(tmp_path.iterdir())


def test_a_split_that_lost_examples_is_refused(copy):
    from study.data.formats.dataset import Dataset

    dataset = Dataset.open(copy)
    write_shard(dataset.split("val_font").shards[0], examples(2))
    with pytest.raises(DataError, match=r"val_font.*hold 2 examples"):
        open_split(dataset, "val_font")
