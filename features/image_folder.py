"""Folders of images, as HMDB51 and many others keep videos: one image a frame, in natural order."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from features.errors import ClipError
from features.sampling import Pick
from features.stamp import images_of
from features.timeline import Span
from features.types import FrameBatch
from features.video import MAX_PIXELS, Image

_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def read_image_folder(
    folder: Path,
    pick: Pick,
    prepare: Callable[[Image], Image],
    *,
    span: Span,
    picture: Callable[[Image], bytes] = lambda image: b"",
    folder_fps: float = 25.0,
    alive: Callable[[], None] = lambda: None,
) -> FrameBatch:
    """The images that `pick` wants, the i-th being shown from `i / folder_fps` seconds on.

    Raises ClipError where numbers are missing in the row, an image cannot be read, or sizes are mixed.
    """
    images = natural_order(list(images_of(folder)))
    _check_gaps(images)
    times, length = np.arange(len(images)) / folder_fps, len(images) / folder_fps
    start, end = span[0], min(span[1], length)
    if start >= length:
        raise ClipError("decode", f"it begins at {start:g} s of {len(images)} images that last {length:.1f} s")
    rows = pick(times, start, end)
    wanted = np.unique(np.concatenate([row.ravel() for row in rows.values()]))
    data: list[Image] = []
    pictures: list[bytes] = []
    size = (0, 0)
    for i in wanted.tolist():
        alive()
        image = _read(images[i])
        met = (image.shape[1], image.shape[0])
        if data and met != size:
            raise ClipError(
                "decode",
                f"images of mixed sizes: {images[wanted[0]].name} is {size[0]}x{size[1]}, "
                f"{images[i].name} is {met[0]}x{met[1]}",
            )
        size = met
        data.append(prepare(image))
        pictures.append(picture(image))
    return FrameBatch(
        data=np.stack(data),  # (N, S, S, 3)
        times=(times[wanted] - start).clip(0),
        duration=end - start,
        size=size,
        rows={view: np.searchsorted(wanted, row) for view, row in rows.items()},
        pictures=tuple(pictures),
    )


def natural_order(files: Sequence[Path]) -> list[Path]:
    """By the numbers in their names: frame_2 before frame_10."""
    return sorted(files, key=lambda file: [int(p) if p.isdigit() else p.lower() for p in re.split(r"(\d+)", file.name)])


def _check_gaps(images: Sequence[Path]) -> None:
    """The last number of each name must count up by one step."""
    if not images:
        raise ClipError("open", "no images in this folder")
    numbers = [int(found[1]) if (found := _NUMBER.search(image.stem)) else None for image in images]
    if None in numbers:
        raise ClipError(
            "open", f"'{images[numbers.index(None)].name}' has no number; expected names such as frame_0001.jpg"
        )
    steps = np.diff(np.array(numbers, np.int64))
    usual = int(np.median(steps)) if len(steps) else 1
    for i in np.flatnonzero(steps != usual)[:1].tolist():
        raise ClipError(
            "open",
            f"gap in the images: '{images[i + 1].name}' follows '{images[i].name}', the usual step is {usual}",
        )


def _read(file: Path) -> Image:
    encoded = np.fromfile(file, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None  # a name that is no UTF-8 kills imread
    if image is None:
        raise ClipError("decode", f"'{file.name}' is no image, or damaged")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ClipError("decode", f"'{file.name}' is too large: {image.shape[1]}x{image.shape[0]}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
