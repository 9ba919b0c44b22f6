"""Folders, CSV manifests and single files to a list of clips."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from features.errors import SettingsError
from features.folders import VIDEO_SUFFIXES, read_folder, safe_text
from features.label_map import apply_label_map, read_label_map
from features.manifests import read_manifest
from features.split_lists import Absent, apply_split_lists, read_split_lists
from features.stamp import IMAGE_SUFFIXES
from features.types import Clip


def find_clips(
    sources: Sequence[Path],
    *,
    split_files: Sequence[Path] = (),
    split_number: int | None = None,
    split_absent: Absent = "refuse",
    label_map: Path | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
) -> list[Clip]:
    """The clips of folders, manifests and single files, sorted by path; in folders, files whose names end so.

    Split lists name clips by the classes that the sources have; a label map then renames these. Raises SettingsError
    where a source is absent, a manifest, list or map is wrong, or nothing is found.
    """
    clips: dict[str, Clip] = {}
    for source in sources:
        for clip in _read_source(source, suffixes):
            key = clip.path if clip.path not in clips else f"{safe_text(source.resolve().name)}/{clip.path}"
            if key in clips:
                raise SettingsError(
                    f"two clips are called '{clip.path}': {clips[key].file} and {clip.file}; rename one source"
                )
            clips[key] = clip if key == clip.path else replace(clip, path=key)
    if not clips:
        named = ", ".join(str(source) for source in sources)
        what, images = ("video", f" and folders of {' '.join(sorted(IMAGE_SUFFIXES))}")
        if suffixes is not VIDEO_SUFFIXES:
            what, images = ("file", "")
        raise SettingsError(f"no {what} found in {named}; looked for {' '.join(sorted(suffixes))}{images}")
    found = [clips[path] for path in sorted(clips)]
    if split_files:
        found = apply_split_lists(found, read_split_lists(split_files, number=split_number), absent=split_absent)
    return apply_label_map(found, read_label_map(label_map), file=label_map) if label_map else found


def _read_source(source: Path, suffixes: Collection[str]) -> Iterator[Clip]:
    if source.is_dir():
        return read_folder(source, suffixes)
    if not source.exists():
        raise SettingsError(f"source {source} does not exist; give a folder, a CSV manifest or a video file")
    if source.suffix.lower() == ".csv":
        return read_manifest(source)
    return iter([Clip(path=safe_text(source.name), file=source)])
