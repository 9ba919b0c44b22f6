"""Clips of folders, CSV manifests, single files and URLs."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from features.errors import SettingsError
from features.sources.folders import decode_file_name, read_folder
from features.sources.label_map import apply_label_map, read_label_map
from features.sources.manifests import read_manifest
from features.sources.split_lists import AbsentClipPolicy, apply_split_lists, read_split_lists
from features.sources.urls import is_url, make_url_clip
from features.types import VIDEO_SUFFIXES, Clip
from features.utils.file_identity import IMAGE_SUFFIXES

DOWNLOADS_FOLDER = Path(".downloads")
"""Default folder for the videos of URLs. It is hidden, so that it is not searched for clips."""


def find_clips(
    sources: Sequence[Path | str],
    *,
    split_files: Sequence[Path] = (),
    split_number: int | None = None,
    split_absent: AbsentClipPolicy = "refuse",
    label_map: Path | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
    downloads: Path = DOWNLOADS_FOLDER,
) -> list[Clip]:
    """Return the clips of folders, manifests, single files and URLs, sorted by path.

    In folders, only files with one of the `suffixes` count. The video of a URL (text such as `https://…`) will lie in
    `downloads`. Split lists name clips by the classes of the sources; a label map renames these afterwards. Raises
    SettingsError if a source does not exist, a manifest, list or map is wrong, or no clip is found.
    """
    found = _merge_sources(sources, suffixes, downloads)
    if split_files:
        found = apply_split_lists(found, read_split_lists(split_files, number=split_number), absent=split_absent)
    return apply_label_map(found, read_label_map(label_map), file=label_map) if label_map else found


def _merge_sources(sources: Sequence[Path | str], suffixes: Collection[str], downloads: Path) -> list[Clip]:
    """Return the clips of all sources, sorted by path. A path that is taken gets the name of its source in front."""
    clips: dict[str, Clip] = {}
    for source in sources:
        for clip in _read_source(source, suffixes, downloads):
            if is_url(clip.path) and clips.get(clip.path) == clip:
                continue
            is_free = clip.path not in clips or is_url(clip.path)
            key = clip.path if is_free else f"{decode_file_name(Path(source).resolve().name)}/{clip.path}"
            if key in clips:
                raise SettingsError(
                    f"two clips have the path '{clip.path}': {clips[key].file} and {clip.file}; "
                    "rename one of the sources"
                )
            clips[key] = replace(clip, path=key)
    if not clips:
        raise SettingsError(_describe_nothing_found(sources, suffixes))
    return [clips[path] for path in sorted(clips)]


def _describe_nothing_found(sources: Sequence[Path | str], suffixes: Collection[str]) -> str:
    source_names, suffix_names = ", ".join(map(str, sources)), " ".join(sorted(suffixes))
    if suffixes is not VIDEO_SUFFIXES:
        return f"no file found in {source_names}; looked for {suffix_names}"
    return (
        f"no video found in {source_names}; looked for {suffix_names} and folders of {' '.join(sorted(IMAGE_SUFFIXES))}"
    )


def _read_source(source: Path | str, suffixes: Collection[str], downloads: Path) -> Iterator[Clip]:
    if isinstance(source, str):
        return iter([make_url_clip(source, downloads)])
    if source.is_dir():
        return read_folder(source, suffixes)
    if not source.exists():
        raise SettingsError(f"source {source} does not exist; give a folder, a CSV manifest or a video file")
    if source.suffix.lower() == ".csv":
        return read_manifest(source, downloads)
    return iter([Clip(path=decode_file_name(source.name), file=source)])
