"""The command `hazard serve`: the web page and its API."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import SettingsError
from features.utils.command_line import EXIT_OK, StopFlag, stop_on_signals, version_option
from features.utils.text import format_count

if TYPE_CHECKING:
    from hazard.inference.settings import InferSettings
    from hazard.web.settings import ServeSettings

_NAME_PATTERN = re.compile(r"[\w .-]{1,60}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.option(
    "--model", "models", metavar="[NAME=]FOLDER", multiple=True, help="Folder of a trained model; may be repeated."
)
@click.option(
    "--monitor",
    "monitors",
    metavar="[NAME=]FOLDER",
    multiple=True,
    help="Output folder of `hazard monitor`; may be repeated.",
)
@click.option("--host", help="Address to listen on; any but this machine's own needs --token. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one. [8000]")
@click.option("--token", envvar="HAZARD_TOKEN", show_envvar=True, help="Token that the page and the API ask for.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of uploads and results. [serve]")
@click.option("--zero-shot", metavar="LABELS.json", help="Labels that CLIP may give to unknown clips.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Threshold of the positive label. [the model's]")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with sections serve and infer.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting of infer, or serve.KEY.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "openvino"]),
    help="Library that runs the backbone on a CPU. [openvino, if installed]",
)
def serve(
    models: tuple[str, ...],
    monitors: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    **flags: object,
) -> int:
    """Serve a web page and a JSON API.

    They analyse uploaded videos and show the events of monitors. By default the server only accepts connections from
    this machine. Use --host and --token to allow others.
    """
    # All libraries are imported in functions: the options are checked at once, and a missing library is one line.
    from features.utils.settings import load_settings
    from hazard.inference.settings import InferSettings
    from hazard.web.settings import ServeSettings

    serve_flags = {key: flags.pop(key) for key in ("host", "port", "token", "data")}
    serve_flags |= {
        "models": _parse_named_folders(models, "--model"),
        "monitors": _parse_named_folders(monitors, "--monitor"),
    }
    serve_overrides = [text for text in overrides if text.strip().startswith("serve.")]
    infer_overrides = [text for text in overrides if text not in serve_overrides]
    settings = load_settings(ServeSettings, "serve", file=config, overrides=serve_overrides, flags=serve_flags)
    infer = load_settings(InferSettings, "infer", file=config, overrides=infer_overrides, flags=flags)
    _check_folders(settings)
    try:
        from hazard.web.server import check_exposure
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"hazard serve needs {error.name}: pip install fastapi h11 python-multipart starlette uvicorn"
        ) from None
    check_exposure(settings)
    with stop_on_signals(lambda text: click.echo("stopping", err=True)) as stop:
        _run_server(settings, infer, stop)
    return stop.exit_code if stop else EXIT_OK


def _run_server(settings: "ServeSettings", infer: "InferSettings", stop: StopFlag) -> None:
    from hazard.web.app import create_app
    from hazard.web.engine.engine import open_engine
    from hazard.web.server import open_listener, serve, server_url

    if settings.models:
        import cv2  # noqa: F401  # for the workers: only the first import in a process says which library is missing
    with open_listener(settings) as listener:
        url = server_url(listener, settings)
        if settings.models:
            click.echo(f"opening {format_count(len(settings.models), 'model')}: {', '.join(settings.models)}")
        with open_engine(settings, infer) as engine:
            if not stop:
                page = url if settings.models else f"{url}/cameras"
                click.echo(f"open {page} in a browser; press Ctrl-C to stop")
                serve(create_app(settings, engine), listener, is_stopped=lambda: bool(stop))


def _parse_named_folders(given: Sequence[str], option: str) -> dict[str, Path] | None:
    """Return folders by name; None if none are given, so that those of a settings file are used.

    Raises SettingsError for an impossible name or one that is used twice.
    """
    named: dict[str, Path] = {}
    for name, folder in _split_names(given):
        if not _NAME_PATTERN.fullmatch(name):
            raise SettingsError(
                f"{option} {name}={folder}: a name has 1 to 60 letters, digits, spaces, underscores, dots and dashes"
            )
        if name in named:
            raise SettingsError(f"{option}: two folders have the name '{name}'; give each a name: {option} NAME=FOLDER")
        named[name] = folder
    return named or None


def _split_names(given: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for text in given:
        name, equals, folder = text.partition("=")
        is_named = bool(equals) and not Path(text).exists()
        yield (name, Path(folder)) if is_named else (Path(text).absolute().name, Path(text))


def _check_folders(settings: "ServeSettings") -> None:
    if not settings.models and not settings.monitors:
        raise SettingsError(
            "give a model (--model FOLDER), a monitor (--monitor FOLDER) or section `serve` of --config"
        )
    for name, folder in settings.monitors.items():
        if not folder.is_dir():
            raise SettingsError(
                f"--monitor {name}={folder}: the folder does not exist; give the folder of `hazard monitor -o`"
            )
