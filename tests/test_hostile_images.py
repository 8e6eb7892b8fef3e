"""No image file takes more memory, or more time, than a small picture may."""

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stabdeq.data import folder
from stabdeq.data.folder import MOST_PIXELS, list_images, read_images
from stabdeq.errors import DataError


def gif(width: int, height: int) -> bytes:
    """A GIF of 35 bytes, however many pixels it claims."""
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + b"\0\0\0\xff\xff\xff" + b"," + b"\0" * 4 + size + b"\0\x02\x02D\x01\0;"


def png(width: int, height: int) -> bytes:
    """A PNG without any of the pixels that it claims."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def ppm(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height)


@pytest.mark.parametrize("make", [gif, png, bmp, ppm])
@pytest.mark.parametrize(("width", "height"), [(13_000, 13_000), (4097, 4096), (30_000, 30_000)])
def test_what_is_claimed_is_looked_at_before_it_is_decoded(
    make: Callable[[int, int], bytes], width: int, height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(make(width, height))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        read_images([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path} cannot be read as an image (")
    assert peak < 2**24


def tiff(side: int) -> bytes:
    """A TIFF of 10 x 10 pixels, in one tile that is ``side`` wide and long: 8192 takes 64 KB in the file, and 64 MB where it is decoded."""
    packer, zeros = zlib.compressobj(9), bytes(2**20)
    content = b"".join([*(packer.compress(zeros) for _ in range(side * side >> 20)), packer.flush()])
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


def test_a_tile_larger_than_any_image(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(tiff(1024))
    assert read_images([tmp_path / "small"]).shape == (1, 1, 10, 10)
    (tmp_path / "bomb").write_bytes(tiff(8192))
    with pytest.raises(DataError, match="it has 67108864 pixels in a tile, more than 16777216"):
        read_images([tmp_path / "bomb"])


def test_the_largest_image_that_is_read(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5)
    Image.new("L", (side, side)).save(tmp_path / "x.png")
    assert read_images([tmp_path / "x.png"]).shape == (1, 1, side, side)


def test_a_folder_of_more_than_memory_holds(tmp_path: Path) -> None:
    """Each image is a small file, and none is too large: together they would take 6 GB."""
    Image.new("L", (4096, 4096)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"120 images of 4096x4096 pixels.* take more than 4294967296 bytes"):
        read_images([tmp_path / "x.png"] * 120)


def test_a_file_larger_than_any_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.bmp")
    monkeypatch.setattr(folder, "LARGEST_FILE", 100)
    with pytest.raises(DataError, match="bytes, more than 100"):
        read_images([tmp_path / "x.bmp"])


def test_a_pipe_and_a_device_among_the_images(tmp_path: Path, no_hang: None) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("pipe", "device"):
        with pytest.raises(DataError, match="no regular file"):
            read_images([tmp_path / name])


def test_links_that_lead_to_a_folder_twice(tmp_path: Path, no_hang: None) -> None:
    """Twenty folders with two links each to the next: a walk along all ways would take a million steps."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "set" / name / "x.png")
    (tmp_path / "set" / "a" / "linked").symlink_to(tmp_path / "set" / "b")  # once is well
    assert len(list_images(tmp_path / "set")[0]) == 3
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set" / "b")
    with pytest.raises(DataError, match="links lead to this folder twice"):
        list_images(tmp_path / "set")
    (tmp_path / "set" / "a" / "again").unlink()
    (tmp_path / "set" / "b" / "loop").symlink_to(tmp_path / "set" / "b")
    with pytest.raises(DataError, match="links lead to this folder twice"):
        list_images(tmp_path / "set")
