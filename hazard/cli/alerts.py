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
    """Send a test alert through every channel.

    CONFIG is the settings file of a monitor. Each channel is tried once, and its result is printed. The exit code is 3
    if a channel fails.
    """
    from hazard.alerts.delivery import try_each_channel
    from hazard.alerts.settings import load_alert_settings

    settings = load_alert_settings(config)
    if not settings.channels:
        raise SettingsError(f"section 'alerts' of {config} has no channels; add one as in docs/alerts.md")
    failed = 0
    with TemporaryDirectory(prefix="hazard-alert-") as folder:
        for channel, reason, seconds in try_each_channel(settings, _make_test_alert(Path(folder))):
            failed += reason is not None
            click.echo(f"{channel.name} ({channel.kind}): {reason or f'delivered in {seconds:.1f} s'}")
    click.echo(f"{len(settings.channels) - failed} of {len(settings.channels)} channels delivered the test alert")
    return EXIT_FAILED_ITEMS if failed else EXIT_OK


@click.command("alert-list")
@click.argument("outbox", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--retry",
    is_flag=True,
    help="Retry dead letters. A running monitor sends them within a minute.",
)
def alert_list(outbox: Path, retry: bool) -> int:
    """List waiting alerts and dead letters.

    OUTBOX is the file outbox.sqlite of a monitor. Dead letters are alerts that were given up.
    """
    from hazard.alerts.outbox import open_outbox
    from hazard.alerts.settings import AlertSettings

    if not outbox.is_file():
        raise SettingsError(f"outbox {outbox} does not exist; `hazard monitor` creates it in its output folder")
    with open_outbox(outbox, AlertSettings()) as queue:
        retried = queue.retry_dead_letters() if retry else 0
        for delivery in [*queue.list_pending(), *queue.list_dead_letters()]:
            queued = datetime.fromtimestamp(delivery.queued_at, UTC)
            attempts = f"{delivery.attempts} failed: {delivery.reason}" if delivery.attempts else "not tried yet"
            click.echo(
                f"{delivery.state}  {queued:%Y-%m-%d %H:%M:%S}  {delivery.channel}  {delivery.alert.id}  ({attempts})"
            )
        counts = queue.count_by_state()
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    if retry:
        click.echo(f"{retried} of them will be tried again")
    return EXIT_OK


def _make_test_alert(folder: Path) -> Alert:
    """Return an alert that is marked as a test, in its text and in its picture."""
    from PIL import Image, ImageDraw

    now = time.time()
    picture = folder / "test.jpg"
    image = Image.new("RGB", (640, 360), (32, 64, 96))
    ImageDraw.Draw(image).text((40, 150), "test alert: nothing happened", fill="white", font_size=40)
    image.save(picture)
    started = datetime.fromtimestamp(now, UTC)
    return Alert(f"test-{now:.3f}", "test", "hazard", "test", started, None, 0.0, picture, None)
