"""The command `extract-features`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.sources.shards import Shard, parse_shard
from features.sources.urls import parse_source
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK, run_command, stop_on_signals, version_option

if TYPE_CHECKING:
    from features.config import ExtractSettings
    from features.types import Clip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=parse_source)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Cache file to write, such as features.h5.",
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML settings file; its section `extract` is used.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option(
    "--split-file",
    "split_files",
    metavar="FILE",
    multiple=True,
    help="Split list of UCF101 or HMDB51, or a folder of lists; may be repeated.",
)
@click.option("--split-number", type=click.IntRange(1), help="Number of the split to use from that folder.")
@click.option("--label-map", metavar="FILE", help="YAML file of `old: new` lines: rename, merge or drop (`-`) classes.")
@click.option(
    "--backbone", metavar="NAME", help="Backbone, such as resnet18, r3d_18, timm:NAME, clip:MODEL. [mobilenet_v2]"
)
@click.option("--weights", metavar="auto|random|PATH", help="Weights of the backbone; auto: pretrained. [auto]")
@click.option("--frames", type=click.IntRange(1), help="Evenly spaced frames per clip. [12]")
@click.option("--fps", type=float, help="Frames per second, instead of --frames.")
@click.option("--every", type=click.IntRange(1), help="Every Nth frame, instead of --frames.")
@click.option("--all-frames", is_flag=True, default=None, help="Every frame, instead of --frames.")
@click.option("--folder-fps", type=float, help="Frames per second of image folders. [25]")
@click.option("--views", metavar="none,flip,...", help="Augmentation views to cache for each clip. [none]")
@click.option(
    "--size", type=click.IntRange(32, 2048), help="Side of the square input, in pixels. [the backbone's: 224]"
)
@click.option("--pooling", type=click.Choice(["avg", "max", "avg+max"]), help="Pooling of the last feature map. [avg]")
@click.option(
    "--reduce",
    metavar="select:512|pca:512|random:512|none",
    help="Reduction of the features; also pca-scaled, pca-whitened. [select:512]",
)
@click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device of the backbone. [auto]")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "openvino"]),
    help="Library that runs the backbone on a CPU. [openvino, if installed]",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [one per core]")
@click.option("--batch-size", type=click.IntRange(1), help="Frames per forward pass.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="Engine that runs the workers. [local]")
@click.option("--address", metavar="HOST:PORT|auto", help="Ray cluster. [Ray on this machine only]")
@click.option(
    "--shard", metavar="I/N", default="1/1", help="Extract only shard I of N, when N machines fill one cache."
)
@click.option("--retry-failed", is_flag=True, help="Retry clips that failed before.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first N clips.")
def extract_features(
    sources: tuple[Path | str, ...],
    output: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    shard: str,
    retry_failed: bool,
    dry_run: bool,
    limit: int | None,
    **flags: object,
) -> int:
    """Decode every clip of SOURCE once and store its features from a frozen network in one HDF5 cache.

    SOURCE is a folder of class folders (of videos or of image folders), a folder of train/ val/ test/ folders with
    class folders in them, a flat folder, a CSV manifest (path, label, group, split, start, end), a video file or a URL
    (https://…). Running the same command again extracts only what is new or changed.
    """
    # All libraries are imported in functions: the options are checked at once, and a missing library is one line.
    from features.config import ExtractSettings
    from features.sources.discover import DOWNLOADS_FOLDER, find_clips
    from features.utils.settings import load_settings

    if views := flags.pop("views"):
        flags["views"] = [name.strip() for name in str(views).split(",")]
    flags["split_files"] = flags["split_files"] or None
    settings = load_settings(ExtractSettings, "extract", file=config, overrides=overrides, flags=flags)
    own_shard = parse_shard(shard)
    clips = find_clips(
        sources,
        split_files=settings.split_files,
        split_number=settings.split_number,
        split_absent=settings.split_absent,
        label_map=settings.label_map,
        downloads=settings.downloads or output.parent / DOWNLOADS_FOLDER,
    )[:limit]
    if dry_run:
        return _print_dry_run(clips, output, settings, retry_failed=retry_failed, shard=own_shard)
    return _extract(clips, output, settings, retry_failed=retry_failed, shard=own_shard)


def _print_dry_run(
    clips: "list[Clip]", output: Path, settings: "ExtractSettings", *, retry_failed: bool, shard: Shard
) -> int:
    from features.cache.plan import make_plan
    from features.extraction.engines import check_engine
    from features.extraction.spec_builder import build_spec
    from features.extraction.summary import describe_dry_run

    spec, _ = build_spec(settings)
    where = check_engine(settings)
    plan = make_plan(clips, output, spec, retry_failed=retry_failed, shard=shard)
    click.echo(describe_dry_run(plan, spec, output, where=where))
    return EXIT_OK


def _extract(
    clips: "list[Clip]", output: Path, settings: "ExtractSettings", *, retry_failed: bool, shard: Shard
) -> int:
    from features.extraction.extract import extract_to_cache
    from features.extraction.summary import describe_plan, describe_summary

    with stop_on_signals(lambda text: click.echo(text, err=True)) as stop:
        summary = extract_to_cache(
            clips,
            output,
            settings,
            retry_failed=retry_failed,
            shard=shard,
            is_stopped=lambda: bool(stop),
            announce=lambda plan: click.echo(describe_plan(plan)),
        )
    click.echo(describe_summary(summary, output))
    if stop:
        return stop.exit_code
    return EXIT_FAILED_ITEMS if summary.failed or summary.failed_before else EXIT_OK


def main() -> None:
    """Run the program `extract-features`."""
    run_command(extract_features)
