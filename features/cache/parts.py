"""Parts: small immutable caches that workers write beside the real cache, named by their own checksum."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.cache.hdf5 import CacheHeader, read_header, write_cache
from features.cache.tables import make_clip_table, make_failure_table
from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.spec import FeatureSpec
from features.types import Failure, FeatureTrack
from features.utils.files import check_writable, remove_stale_temporaries, write_atomically

_MAX_WRITE_ATTEMPTS = 10


@dataclass(frozen=True)
class CachePart:
    """One committed part: its file and its header."""

    path: Path
    header: CacheHeader


def parts_folder(output: Path) -> Path:
    """Return the folder that holds the parts of a cache until they are consolidated."""
    return output.with_name(output.name + ".parts")


def write_part(
    output: Path, tracks: Sequence[FeatureTrack], failures: Sequence[Failure], *, spec: FeatureSpec, weights_file: str
) -> Path:
    """Write tracks and failures as a new part and return its path. Raises RuntimeEnvironmentError if the disk fails."""
    content = io.BytesIO()
    write_cache(
        content,
        ((track.features, track.times) for track in tracks),
        width=tracks[0].features.shape[1] if tracks else 0,
        spec=spec.without_reduction(),
        reduction=None,
        clips=make_clip_table(make_track_rows(tracks)),
        failures=make_failure_table(failures),
        weights_file=weights_file,
    )
    data = content.getvalue()
    path = parts_folder(output) / f"part-{hashlib.sha256(data).hexdigest()}.h5"
    for attempt in range(_MAX_WRITE_ATTEMPTS):
        try:
            check_writable(path)  # creates the folder
            write_atomically(path, data)
            break
        except RuntimeEnvironmentError as error:  # another process may remove the folder while it is empty
            if attempt + 1 == _MAX_WRITE_ATTEMPTS or not isinstance(error.__cause__, FileNotFoundError):
                raise
    return path


def make_track_rows(tracks: Sequence[FeatureTrack]) -> list[dict[str, object]]:
    """Return one row of the clip table, without `start`, for each track."""
    return [
        {
            **vars(track.clip),
            "view": track.view,
            "length": len(track.features),
            "duration": track.duration,
            "status": track.status,
            "decoded_share": track.decoded_share,
        }
        for track in tracks
    ]


def read_parts(output: Path, spec: FeatureSpec) -> tuple[list[CachePart], list[Path]]:
    """Return the parts of a cache, oldest first, and the paths of damaged part files.

    Also removes stale temporary files. Raises ArtifactError if a part was made with settings other than `spec`.
    """
    folder = parts_folder(output)
    remove_stale_temporaries(output.parent)
    remove_stale_temporaries(folder)
    parts, damaged = scan_parts(output)
    for part in parts:
        if differences := spec.without_reduction().differences(part.header.spec):
            raise ArtifactError(
                f"{folder} holds parts of an unfinished run with other settings ({'; '.join(differences)}); "
                "use those settings, delete the folder, or choose another output"
            )
    return parts, damaged


def scan_parts(output: Path) -> tuple[list[CachePart], list[Path]]:
    """Return the parts of a cache, oldest first, and the paths of damaged part files. Changes nothing."""
    parts, damaged = [], []
    for path in sorted(parts_folder(output).glob("part-*.h5")):
        header = _read_part(path)
        if header is None:
            if path.exists():  # otherwise another process has just consolidated it
                damaged.append(path)
        else:
            parts.append(CachePart(path, header))
    return sorted(parts, key=lambda part: (part.header.created, part.path.name)), damaged


def remove_parts(output: Path, paths: Sequence[Path]) -> None:
    """Delete parts that are now in the cache, and their folder if it is empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty: another process is still writing
        parts_folder(output).rmdir()


def _read_part(path: Path) -> CacheHeader | None:
    try:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.stem.removeprefix("part-"):
                return None
        return read_header(path)
    except (ArtifactError, SettingsError, FileNotFoundError):
        return None
