"""The command `python -m features`: prepare clips, and manage caches of features."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.errors import SettingsError
from features.sources.urls import parse_source
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK, run_command, stop_on_signals, version_option

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def features() -> None:
    """Prepare clips for extraction, and manage caches of features."""


@features.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=_FILE, help="CSV file to write, best beside the videos.")
@click.option(
    "--group-from",
    type=click.Choice(["auto", "column", "pattern", "folder", "frames"]),
    default="auto",
    show_default=True,
    help="How to find the clips that belong together. column: groups of the source; pattern: a pattern in the path; "
    "folder: the folder between class and clip; frames: near-duplicate frames; auto: those of the source, else frames.",
)
@click.option("--group-pattern", metavar="REGEX", help=r"For pattern: its first capture is the group. [_(g\d+)_]")
@click.option(
    "--join-alike", "merge_by_scene", is_flag=True, help="Merge groups that share a scene (near-duplicate frames)."
)
@click.option(
    "--alike",
    "min_correlation",
    type=click.FloatRange(0, 1, min_open=True),
    help="Least correlation of near-duplicate frames. [0.55]",
)
@click.option("--split", metavar="SHARES", help="New split: 70/15/15 (train/val/test), 80/20 (train/test) or none.")
@click.option("--keep-split", is_flag=True, help="Keep the split of the source; the default if it has one.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the new split.")
@click.option(
    "--folder-fps",
    type=click.FloatRange(0, min_open=True),
    default=25.0,
    show_default=True,
    help="Frames per second of image folders.",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [one per core]")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT; the old file is kept as .bak.")
def manifest(
    sources: tuple[Path, ...],
    output: Path,
    split: str | None,
    keep_split: bool,
    folder_fps: float,
    workers: int | None,
    with_force: bool,
    **options: Any,
) -> int:
    """Write a manifest of the clips of SOURCE.

    The manifest has the columns path, label, group, split and duration. Check and edit it before extraction.

    Three frames of each clip are decoded. Warnings name classes that are too small, clips that repeat, and scenes that
    are in more than one split. Exit code 3 if a clip cannot be read; it is left out.
    """
    from features.curation.checks import describe_manifest, find_warnings
    from features.curation.manifest import ManifestOptions, describe_left_out, describe_written, make_manifest
    from features.curation.splitting import parse_shares

    if split and keep_split:
        raise SettingsError("--split and --keep-split cannot be used together; remove one of them")
    if options["group_pattern"] and options["group_from"] not in ("auto", "pattern"):
        raise SettingsError(
            f"--group-pattern cannot be used with --group-from {options['group_from']}; remove one of them"
        )
    options |= {"shares": parse_shares(split)} if split and split != "none" else {"with_split": split != "none"}
    given = {key: value for key, value in options.items() if value is not None}
    result = make_manifest(
        sources,
        output,
        ManifestOptions(keep_split=keep_split, **given),
        workers=workers,
        folder_fps=folder_fps,
        with_force=with_force,
    )
    if result.scans:
        click.echo(describe_manifest(result))
    for line in [*(f"warning: {text}" for text in find_warnings(result)), *describe_left_out(result.failures)]:
        click.echo(line, err=True)
    click.echo(describe_written(result, output))
    return EXIT_FAILED_ITEMS if result.failures else EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def inspect(cache: Path, as_json: bool) -> int:
    """Show what is in CACHE.

    This shows the settings, clips by label and split, failures, and parts that are not in the cache yet.
    """
    # Imported in the functions, so that `--help` answers at once.
    from features.cache.inspect import describe_inspection, inspect_cache

    header, facts = inspect_cache(cache)
    click.echo(json.dumps(asdict(facts), indent=2) if as_json else describe_inspection(header, facts))
    return EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=parse_source)
@click.option("--label-map", type=_FILE, help="Label map of the extraction; clips of dropped classes are not missing.")
@click.option("--all", "with_all", is_flag=True, help="List all findings, not only ten of each kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all findings.")
def verify(cache: Path, sources: tuple[Path | str, ...], label_map: Path | None, with_all: bool, as_json: bool) -> int:
    """Check CACHE for damage and missing clips.

    This checks the digest, shapes, finite numbers, and the parts beside the cache. With the SOURCE that it was made
    from, it also reports clips that are missing, vanished, stale or failed. Exit code 0 if all is well, 3 if something
    is missing, vanished, stale or failed, 4 if something is damaged.
    """
    from features.cache.exchange.import_arrays import find_clips_for_cache
    from features.cache.verify import describe_verification, examine_cache
    from features.sources.discover import DOWNLOADS_FOLDER

    clips = (
        find_clips_for_cache(cache, sources, label_map=label_map, downloads=cache.parent / DOWNLOADS_FOLDER)
        if sources
        else None
    )
    verdict = examine_cache(cache, clips)
    click.echo(json.dumps(asdict(verdict), indent=2) if as_json else describe_verification(verdict, with_all=with_all))
    return verdict.exit_code


@features.command()
@click.argument("caches", metavar="CACHE CACHE...", nargs=-1, required=True, type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="Merged cache; can be one of the inputs.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT even if it is not an input.")
def merge(caches: tuple[Path, ...], output: Path, with_force: bool) -> int:
    """Merge caches of the same features, with each clip once.

    The failures of all caches are kept, unless another cache has features of the clip.
    """
    from features.cache.merge import describe_merge, merge_caches

    click.echo(describe_merge(merge_caches(caches, output, with_force=with_force)))
    return EXIT_OK


@features.command("import")
@click.argument("sources", metavar="FOLDER|MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=_FILE, help="Cache file to write, such as features.h5.")
@click.option(
    "--name", help="Name of the program that made the features; caches with other names do not mix. [features]"
)
@click.option("--key", metavar="NAME", help="Array to read from .npz and .mat files that hold several.")
@click.option("--transpose", "is_transposed", is_flag=True, help="The arrays are (features, rows).")
@click.option("--fps", type=float, help="Rows per second, for files without times. [1]")
@click.option("--width", type=click.IntRange(1), help="Features per row. [as in most files]")
@click.option("--reduce", metavar="select:512|pca:512|random:512|none", help="Reduction of the features. [none]")
def import_(sources: tuple[Path, ...], output: Path, **flags: Any) -> int:
    """Make a cache from features of other programs.

    The files are .npy, .npz or .mat with one array (rows, features) per clip.

    FOLDER has class folders, split folders or files without labels, as for videos. MANIFEST is a CSV file (path, label,
    group, split, duration). If `a.times.npy` lies beside `a.npy`, it gives the times of the rows. Running the command
    again imports only what is new, changed or failed.
    """
    from features.cache.exchange.import_arrays import ImportSettings, describe_import, import_features

    settings = ImportSettings(**{name: value for name, value in flags.items() if value is not None})
    with stop_on_signals(lambda text: click.echo(text, err=True)) as stop:
        summary = import_features(sources, output, settings, is_stopped=lambda: bool(stop), announce=click.echo)
    click.echo(describe_import(summary, output))
    if stop:
        return stop.exit_code
    return EXIT_FAILED_ITEMS if summary.failed else EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
@click.option(
    "--format", "kind", type=click.Choice(["npy", "parquet"]), default="npy", show_default=True, help="Format."
)
@click.option(
    "--precision",
    type=click.Choice(["float16", "float32"]),
    default="float32",
    show_default=True,
    help="Number format in Parquet.",
)
@click.option("--force", "with_force", is_flag=True, help="Write into a folder that is not empty.")
def export(cache: Path, output: Path, kind: str, precision: str, with_force: bool) -> int:
    """Write CACHE as files for other programs.

    npy: one file (rows, features) per clip, its times beside it, and manifest.csv, which `import` reads. parquet: one
    table of all rows with path, label, group, split, view, time and features.
    """
    from features.cache.exchange.export import describe_export, export_cache

    summary = export_cache(cache, output, kind=kind, precision=precision, with_force=with_force)
    click.echo(describe_export(summary))
    return EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="Reduced cache to write.")
@click.option("--reduce", "reduction", required=True, metavar="select:512|pca:512|random:512", help="Reduction to fit.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT.")
def reduce(cache: Path, output: Path, reduction: str, with_force: bool) -> int:
    """Reduce the features of CACHE.

    CACHE must be made with --reduce none. The result is the same as extracting with this --reduce, but nothing is
    decoded.
    """
    from features.cache.reduce import describe_reduce, reduce_cache

    click.echo(describe_reduce(reduce_cache(cache, output, reduction, with_force=with_force)))
    return EXIT_OK


def main() -> None:
    """Run the program `python -m features`."""
    run_command(features)
