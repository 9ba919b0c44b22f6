"""The command `python -m features`: looking after caches."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from features.clips import find_clips
from features.commands import DONE, run_command

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def features() -> None:
    """Look after caches of features."""


@features.command()
@click.argument("cache", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def inspect(cache: Path, as_json: bool) -> int:
    """Say what is in CACHE: its settings, clips by label and split, failures, and parts that wait beside it."""
    # Imported here, as below: `--help` answers at once.
    from features.inspect import describe_inspection, inspect_cache

    header, facts = inspect_cache(cache)
    click.echo(json.dumps(asdict(facts), indent=2) if as_json else describe_inspection(header, facts))
    return DONE


@features.command()
@click.argument("cache", type=_FILE)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--label-map", type=_FILE, help="As given to the extraction: clips of dropped classes are not missed.")
@click.option("--all", "with_all", is_flag=True, help="Name everything that is found, not only ten of a kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object that names everything.")
def verify(cache: Path, sources: tuple[Path, ...], label_map: Path | None, with_all: bool, as_json: bool) -> int:
    """Check CACHE: digest, shapes, finite numbers, the parts beside it.

    With the SOURCE that it was made of, also which clips are missing, vanished, changed since, or failed. Exit code 0
    where all is well, 3 where something is missing, vanished, stale or failed, 4 where something is damaged.
    """
    from features.verify import describe_verdict, examine_cache

    verdict = examine_cache(cache, find_clips(sources, label_map=label_map) if sources else None)
    click.echo(json.dumps(asdict(verdict), indent=2) if as_json else describe_verdict(verdict, with_all=with_all))
    return verdict.exit_code


@features.command()
@click.argument("caches", metavar="CACHE CACHE...", nargs=-1, required=True, type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="The united cache; may be one of the inputs.")
@click.option("--force", "with_force", is_flag=True, help="Replace OUTPUT even if it is none of the inputs.")
def merge(caches: tuple[Path, ...], output: Path, with_force: bool) -> int:
    """Unite caches of the same features: each clip once, failures together, a track rather than a failure."""
    from features.merge import describe_merge, merge_caches

    click.echo(describe_merge(merge_caches(caches, output, with_force=with_force)))
    return DONE


def main() -> None:
    """The program `python -m features`."""
    run_command(features)


if __name__ == "__main__":
    main()
