"""Folders of images as clips, the format of HMDB51 and other data sets: one image a frame, in natural order."""

import re
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import cv2
import numpy as np
import PIL.Image

from features.errors import ClipError
from features.types import FrameBatch, Span
from features.utils.file_identity import list_images
from features.utils.text import truncate_list
from features.video.container import MAX_FRAME_PIXELS
from features.video.decoder import Image, check_decoded_share
from features.video.sampling import RowSampler
from features.video.timeline import compute_covered_share

END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""Accepted image formats, whatever the file name says, and the bytes at their end.

The end is checked because OpenCV decodes a truncated image without an error.
"""

_TAIL_BYTES = 4096

_LAST_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")


def read_image_folder(
    folder: Path,
    sampler: RowSampler,
    prepare: Callable[[Image], Image | np.int64],
    *,
    span: Span,
    make_thumbnail: Callable[[Image], bytes] = lambda image: b"",
    folder_fps: float = 25.0,
    report_alive: Callable[[], None] = lambda: None,
) -> FrameBatch:
    """Read the images that `sampler` selects. Image i is shown from `i / folder_fps` seconds on.

    Raises ClipError if numbers are missing in the sequence, an image cannot be read, image sizes are mixed, or less
    than half of `span` exists.
    """
    images = list_ordered_images(folder)
    times, length = np.arange(len(images)) / folder_fps, len(images) / folder_fps
    start, end = span[0], min(span[1], length)
    if start >= length:
        raise ClipError(
            "decode", f"the clip starts at {start:g} s, but its {len(images)} images last only {length:.1f} s"
        )
    asked_end = length if span[1] == np.inf else span[1]
    share = check_decoded_share(compute_covered_share(end - start, asked_end - start, 1 / folder_fps))
    rows = sampler(times, start, end)
    wanted = np.unique(np.concatenate([row.ravel() for row in rows.values()]))
    data: list[Image | np.int64] = []
    thumbnails: list[bytes] = []
    size = (0, 0)
    for i in wanted.tolist():
        report_alive()
        image = read_image(images[i])
        image_size = (image.shape[1], image.shape[0])
        if data and image_size != size:
            raise ClipError(
                "decode",
                f"images of mixed sizes: '{images[wanted[0]].name}' is {size[0]}x{size[1]}, "
                f"'{images[i].name}' is {image_size[0]}x{image_size[1]}",
            )
        size = image_size
        data.append(prepare(image))
        thumbnails.append(make_thumbnail(image))
    return FrameBatch(
        data=np.stack(data),  # (N, S, S, 3) or (N,)
        times=(times[wanted] - start).clip(0),
        duration=end - start,
        size=size,
        rows={name: np.searchsorted(wanted, row) for name, row in rows.items()},
        decoded_share=share,
        thumbnails=tuple(thumbnails),
    )


def list_ordered_images(folder: Path) -> list[Path]:
    """Return the images of a folder in frame order. Raises ClipError if numbers are missing in the sequence."""
    images = sort_naturally(list(list_images(folder)))
    _check_numbers(images)
    return images


def sort_naturally(files: Sequence[Path]) -> list[Path]:
    """Sort files by the numbers in their names: frame_2 before frame_10."""
    return sorted(files, key=lambda file: [_sort_key_part(piece) for piece in re.split(r"([0-9]+)", file.name)])


def _sort_key_part(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() and text.isascii() else (-1, text.lower())


def _check_numbers(images: Sequence[Path]) -> None:
    """Check that all names belong to one series and that their last number grows by a constant step."""
    if not images:
        raise ClipError("open", "no images in this folder")
    found = [_LAST_NUMBER.search(image.stem) for image in images]
    for image, match in zip(images, found, strict=True):
        if match is None:
            raise ClipError("open", f"'{image.name}' has no number; expected names such as frame_0001.jpg")
    kinds = sorted({match.string[: match.start()] for match in found if match})
    if len(kinds) > 1:
        raise ClipError(
            "open", f"images of {len(kinds)} kinds: {truncate_list([f'{kind}…' for kind in kinds])}; keep only one kind"
        )
    numbers = [int(match[1]) for match in found if match]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = median_low([step for step in steps if step] or [1])
    for step, (before, after) in zip(steps, pairwise(images), strict=True):
        if step == 0:
            raise ClipError("open", f"'{before.name}' and '{after.name}' have the same number")
        if step != usual:
            raise ClipError(
                "open", f"gap in the images: '{after.name}' follows '{before.name}', the usual step is {usual}"
            )


def read_image(file: Path) -> Image:
    """Read one upright image, (H, W, 3) RGB. Raises ClipError if it cannot be read."""
    try:
        encoded = file.read_bytes()  # imread crashes on a name that is not UTF-8
    except OSError as error:
        raise ClipError("decode", f"'{file.name}' cannot be read: {(error.strerror or str(error)).lower()}") from None
    _check_image(encoded, file.name)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ClipError("decode", f"'{file.name}' is damaged")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _check_image(encoded: bytes, name: str) -> None:
    """Check an image by its header and its end. Raises ClipError if it is not accepted.

    OpenCV cannot do this: it allocates the image before its size can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(BytesIO(encoded), formats=list(END_MARKERS)) as image:
                (width, height), kind = image.size, image.format or ""
        except PIL.Image.DecompressionBombError as error:
            raise ClipError("decode", f"'{name}' is too large: {error}") from None
        except (OSError, SyntaxError, ValueError):
            raise ClipError("decode", f"'{name}' is not a {' or '.join(END_MARKERS)} image, or is damaged") from None
    if width * height > MAX_FRAME_PIXELS:
        raise ClipError("decode", f"'{name}' is too large: {width}x{height}")
    if END_MARKERS.get(kind, END_MARKERS["JPEG"]) not in encoded[-_TAIL_BYTES:]:
        raise ClipError("decode", f"'{name}' is truncated")
