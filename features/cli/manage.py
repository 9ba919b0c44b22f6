"""The command `python -m features`: preparing clips, and looking after caches."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.errors import SettingsError
from features.sources.discover import DOWNLOADS_FOLDER
from features.sources.urls import parse_source
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK, run_command, stop_on_signals

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def features() -> None:
    """Prepare clips for extraction, and look after caches of features."""


@features.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=_FILE, help="The CSV to write; best beside the videos.")
@click.option(
    "--group-from",
    type=click.Choice(["auto", "column", "pattern", "folder", "frames"]),
    default="auto",
    show_default=True,
    help="What tells which clips belong together: those of the source; a pattern in their paths; the folder "
    "between class and clip; near-duplicate frames. auto: those of the source, else frames.",
)
@click.option(
    "--group-pattern", metavar="REGEX", help=r"For pattern: its first group is the group; by default _(g\d+)_"
)
@click.option("--join-alike", is_flag=True, help="Groups that share a scene, by near-duplicate frames, become one.")
@click.option("--alike", type=click.FloatRange(0, 1, min_open=True), help="Correlation of near-duplicate frames [0.55]")
@click.option("--split", metavar="SHARES", help="Make a split: 70/15/15 (train/val/test), 80/20 (train/test) or none.")
@click.option(
    "--keep-split", is_flag=True, help="Keep the source's split; done anyway where there is one and no --split."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split that is made.")
@click.option("--folder-fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Worker processes; one a core by default.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT; the old one is kept as .bak.")
def manifest(
    sources: tuple[Path, ...],
    output: Path,
    split: str | None,
    keep_split: bool,
    folder_fps: float,
    workers: int | None,
    with_force: bool,
    **wishes: Any,
) -> int:
    """Write a manifest of the clips of SOURCE, to look at and edit: path, label, group, split, duration.

    Each clip is opened and three of its frames are looked at. Classes that are too small, clips that repeat, and scenes
    on both sides of a split are named. Exit code 3 where a clip cannot be read; it is left out.
    """
    from features.curation.checks import describe_manifest, find_warnings
    from features.curation.manifest import ManifestOptions, describe_left_out, describe_written, make_manifest
    from features.curation.splitting import parse_shares

    if split and keep_split:
        raise SettingsError("give either --split or --keep-split")
    if wishes["group_pattern"] and wishes["group_from"] not in ("auto", "pattern"):
        raise SettingsError(f"--group-pattern does not go with --group-from {wishes['group_from']}; leave one out")
    wishes |= {"shares": parse_shares(split)} if split and split != "none" else {"with_split": split != "none"}
    given = ManifestOptions(keep_split=keep_split, **{key: value for key, value in wishes.items() if value is not None})
    made = make_manifest(sources, output, given, workers=workers, folder_fps=folder_fps, with_force=with_force)
    if made.scans:
        click.echo(describe_manifest(made))
    for line in [*(f"warning: {text}" for text in find_warnings(made)), *describe_left_out(made.failures)]:
        click.echo(line, err=True)
    click.echo(describe_written(made, output))
    return EXIT_FAILED_ITEMS if made.failures else EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def inspect(cache: Path, as_json: bool) -> int:
    """Say what is in CACHE: its settings, clips by label and split, failures, and parts that wait beside it."""
    # Imported here, as below: `--help` answers at once.
    from features.cache.inspect import describe_inspection, inspect_cache

    header, facts = inspect_cache(cache)
    click.echo(json.dumps(asdict(facts), indent=2) if as_json else describe_inspection(header, facts))
    return EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=parse_source)
@click.option("--label-map", type=_FILE, help="As given to the extraction: clips of dropped classes are not missed.")
@click.option("--all", "with_all", is_flag=True, help="Name everything that is found, not only ten of a kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object that names everything.")
def verify(cache: Path, sources: tuple[Path | str, ...], label_map: Path | None, with_all: bool, as_json: bool) -> int:
    """Check CACHE: digest, shapes, finite numbers, the parts beside it.

    With the SOURCE that it was made of, also which clips are missing, vanished, changed since, or failed. Exit code 0
    where all is well, 3 where something is missing, vanished, stale or failed, 4 where something is damaged.
    """
    from features.cache.exchange.import_arrays import find_clips_for_cache
    from features.cache.verify import describe_verification, examine_cache

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
@click.option("-o", "--output", required=True, type=_FILE, help="The united cache; may be one of the inputs.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT even if it is none of the inputs.")
def merge(caches: tuple[Path, ...], output: Path, with_force: bool) -> int:
    """Unite caches of the same features: each clip once, failures together, a track rather than a failure."""
    from features.cache.merge import describe_merge, merge_caches

    click.echo(describe_merge(merge_caches(caches, output, with_force=with_force)))
    return EXIT_OK


@features.command("import")
@click.argument("sources", metavar="FOLDER|MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=_FILE, help="The cache, such as features.h5.")
@click.option("--name", help="What made the features, in a word; caches of other names do not mix. [features]")
@click.option("--key", metavar="NAME", help="The array of .npz and .mat files that hold several.")
@click.option("--transpose", "is_transposed", is_flag=True, help="Files hold (features, rows).")
@click.option("--fps", type=float, help="Rows a second, of files without times beside them. [1]")
@click.option("--width", type=click.IntRange(1), help="Numbers a row. [those of most files]")
@click.option("--reduce", metavar="select:512|pca:512|random:512|none", help="Reduction. [none]")
def import_(sources: tuple[Path, ...], output: Path, **flags: Any) -> int:
    """Make a cache of feature files that other programs made: .npy, .npz or .mat, one array (rows, features) a clip.

    Class folders, split folders, a flat folder or a CSV manifest (path, label, group, split, duration), as with videos.
    Times of rows are taken from `a.times.npy` beside `a.npy`, where it is there. Running it again imports what is new,
    changed or failed.
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
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder, new or empty.")
@click.option("--format", "kind", type=click.Choice(["npy", "parquet"]), default="npy", show_default=True)
@click.option(
    "--precision", type=click.Choice(["float16", "float32"]), default="float32", show_default=True, help="In Parquet."
)
@click.option("--force", "with_force", is_flag=True, help="Write into a folder that holds files already.")
def export(cache: Path, output: Path, kind: str, precision: str, with_force: bool) -> int:
    """Write CACHE as files for other programs.

    npy: a file (rows, features) a clip, its times beside it, and manifest.csv, which `import` reads back. parquet: one
    table of all rows, with path, label, group, split, view, time and features.
    """
    from features.cache.exchange.export import describe_export, export_cache

    summary = export_cache(cache, output, kind=kind, precision=precision, with_force=with_force)
    click.echo(describe_export(summary))
    return EXIT_OK


@features.command()
@click.argument("cache", type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="The smaller cache.")
@click.option("--reduce", "reduction", required=True, metavar="select:512|pca:512|random:512", help="The reduction.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT.")
def reduce(cache: Path, output: Path, reduction: str, with_force: bool) -> int:
    """Reduce CACHE, made with --reduce none, to what extraction with this --reduce gives; nothing is decoded."""
    from features.cache.reduce import describe_reduce, reduce_cache

    click.echo(describe_reduce(reduce_cache(cache, output, reduction, with_force=with_force)))
    return EXIT_OK


def main() -> None:
    """The program `python -m features`."""
    run_command(features)
