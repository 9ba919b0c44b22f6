"""The commands `hazard alert-test` and `hazard alert-list`."""

import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from features.errors import SettingsError
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK
from hazard.alerts.alert import Alert


@click.command("alert-test")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
def alert_test(config: Path) -> int:
    """Send one test alert through every channel of CONFIG, a monitor's file, and say what happened.

    Nothing is tried twice. Ends with 3 where a channel did not take it.
    """
    from hazard.alerts.delivery import try_each_channel
    from hazard.alerts.settings import load_alert_settings

    settings = load_alert_settings(config)
    if not settings.channels:
        raise SettingsError(f"section 'alerts' of {config} has no channels; see docs/alerts.md")
    failed = 0
    with TemporaryDirectory(prefix="hazard-alert-") as folder:
        for channel, reason, seconds in try_each_channel(settings, _make_test_alert(Path(folder))):
            failed += reason is not None
            click.echo(f"{channel.name} ({channel.kind}): {reason or f'delivered in {seconds:.1f} s'}")
    click.echo(f"{len(settings.channels) - failed} of {len(settings.channels)} channels took the test alert")
    return EXIT_FAILED_ITEMS if failed else EXIT_OK


@click.command("alert-list")
@click.argument("outbox", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--retry", is_flag=True, help="Try the dead letters anew; a running monitor does so within a minute.")
def alert_list(outbox: Path, retry: bool) -> int:
    """List the alerts of the file OUTBOX that are on their way, and those that were given up (dead letters)."""
    from hazard.alerts.outbox import open_outbox
    from hazard.alerts.settings import AlertSettings

    if not outbox.is_file():
        raise SettingsError(f"there is no outbox {outbox}; a monitor makes it in its output folder")
    with open_outbox(outbox, AlertSettings()) as opened:
        revived = opened.retry_dead_letters() if retry else 0
        for delivery in [*opened.list_pending(), *opened.list_dead_letters()]:
            put = datetime.fromtimestamp(delivery.put, UTC)
            tried = f"{delivery.attempts} failed: {delivery.reason}" if delivery.attempts else "not tried yet"
            click.echo(f"{delivery.state}  {put:%Y-%m-%d %H:%M:%S}  {delivery.channel}  {delivery.alert.id}  ({tried})")
        counts = opened.count_by_state()
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    if retry:
        click.echo(f"{revived} of them tried anew")
    return EXIT_OK


def _make_test_alert(folder: Path) -> Alert:
    """An alert that says it is a test, with a picture that does too."""
    from PIL import Image, ImageDraw

    now = time.time()
    picture = folder / "test.jpg"
    image = Image.new("RGB", (640, 360), (32, 64, 96))
    ImageDraw.Draw(image).text((40, 150), "test alert: nothing happened", fill="white", font_size=40)
    image.save(picture)
    started = datetime.fromtimestamp(now, UTC)
    return Alert(f"test-{now:.3f}", "test", "hazard", "test", started, None, 0.0, picture, None)
