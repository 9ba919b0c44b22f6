"""Parts: small immutable caches that workers leave beside the real one, named by their own checksum."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.cache.hdf5 import Header, read_header, write_cache
from features.cache.tables import clip_table, failure_table
from features.errors import ArtefactRefused, EnvironmentStopped, SettingsError
from features.spec import FeatureSpec
from features.types import Failure, FeatureTrack
from features.utils.files import check_writable, sweep_temporary, write_atomically

_ATTEMPTS = 10


@dataclass(frozen=True)
class Part:
    """One committed part and what it holds."""

    path: Path
    header: Header


def parts_folder(output: Path) -> Path:
    """Where the parts of a cache lie until they are consolidated."""
    return output.with_name(output.name + ".parts")


def write_part(
    output: Path, tracks: Sequence[FeatureTrack], failures: Sequence[Failure], *, spec: FeatureSpec, weights_file: str
) -> Path:
    """Commits tracks and failures. Raises EnvironmentStopped where the disk does not take them."""
    content = io.BytesIO()
    write_cache(
        content,
        ((track.features, track.times) for track in tracks),
        width=tracks[0].features.shape[1] if tracks else 0,
        spec=spec.raw(),
        reduction=None,
        clips=clip_table(track_rows(tracks)),
        failures=failure_table(failures),
        weights_file=weights_file,
    )
    data = content.getvalue()
    path = parts_folder(output) / f"part-{hashlib.sha256(data).hexdigest()}.h5"
    for attempt in range(_ATTEMPTS):
        try:
            check_writable(path)  # makes the folder
            write_atomically(path, data)
            break
        except EnvironmentStopped as error:  # another process may remove the folder just when it is empty
            if attempt + 1 == _ATTEMPTS or not isinstance(error.__cause__, FileNotFoundError):
                raise
    return path


def track_rows(tracks: Sequence[FeatureTrack]) -> list[dict[str, object]]:
    """The rows of a clip table."""
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


def read_parts(output: Path, spec: FeatureSpec) -> tuple[list[Part], list[Path]]:
    """As `scan_parts`; sweeps stale temporary files too. Raises ArtefactRefused where parts have other settings."""
    folder = parts_folder(output)
    sweep_temporary(output.parent)
    sweep_temporary(folder)
    parts, damaged = scan_parts(output)
    for part in parts:
        if differences := spec.raw().differences(part.header.spec):
            raise ArtefactRefused(
                f"{folder} holds parts of an unfinished run with other settings ({'; '.join(differences)}); "
                "use those settings, delete the folder, or choose another output"
            )
    return parts, damaged


def scan_parts(output: Path) -> tuple[list[Part], list[Path]]:
    """The parts of a cache, oldest first, and the files among them that are damaged."""
    parts, damaged = [], []
    for path in sorted(parts_folder(output).glob("part-*.h5")):
        header = _read_part(path)
        if header is None:
            if path.exists():  # else: another process has consolidated it meanwhile
                damaged.append(path)
        else:
            parts.append(Part(path, header))
    return sorted(parts, key=lambda part: (part.header.created, part.path.name)), damaged


def remove_parts(output: Path, paths: Sequence[Path]) -> None:
    """Removes parts that are in the cache now, and the folder when it is empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty: another process is still writing
        parts_folder(output).rmdir()


def _read_part(path: Path) -> Header | None:
    try:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.stem.removeprefix("part-"):
                return None
        return read_header(path)
    except (ArtefactRefused, SettingsError, FileNotFoundError):
        return None
