"""What the API answers of cameras, as OpenAPI describes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hazard.web.cameras.events import RecordedEvent, format_time
from hazard.web.cameras.feedback import MAX_LABEL_LENGTH, Feedback, Verdict
from hazard.web.cameras.queries import CameraQueries, EventPage
from hazard.web.cameras.sites import CameraState, CameraStatus, FileState, RecordedEventState
from hazard.web.cameras.statistics import EventStatistics, FeedbackCounts


class EventFile(BaseModel):
    """A snapshot or a clip."""

    state: FileState
    url: str | None
    """Null where it is not there."""


class EventFacts(BaseModel):
    """Something that a camera saw. Times are UTC."""

    key: str
    site: str
    camera: str
    label: str
    started: str
    ended: str | None
    """Null while it goes on; of an event that was lost sight of, when it was last heard of."""
    seconds: float | None
    state: RecordedEventState
    is_muted: bool
    """One alert too many of that camera in a minute: nobody was told."""
    is_alerted: bool
    probability: float
    """The highest."""
    mark: Verdict
    """What a person said of it."""
    mark_label: str
    """What it was, where the person said so."""
    snapshot: EventFile
    clip: EventFile
    page: str


class EventList(BaseModel):
    """Events, newest first."""

    events: list[EventFacts]
    total: int
    """Of all pieces."""
    next: str | None
    """Ask for the next piece with `cursor`; null after the last."""


class CameraFacts(BaseModel):
    """How a camera stands."""

    site: str
    name: str
    state: CameraState
    since: str | None
    """Since when it is offline or not watched, where known."""
    reason: str
    last_event: EventFacts | None
    picture: str | None
    """The newest snapshot."""


class CameraList(BaseModel):
    """The cameras of all sites."""

    cameras: list[CameraFacts]


class NewMark(BaseModel):
    """What a person says of an event."""

    model_config = ConfigDict(extra="forbid")

    mark: Verdict
    """Nothing takes it back."""
    label: str = Field("", max_length=MAX_LABEL_LENGTH)
    """What it really was, where it was wrong."""


class Counted(BaseModel):
    """How many events, and what people said of them."""

    count: int
    right: int
    wrong: int
    share_confirmed: float | None
    """Of those that were marked, how many were right; null where none was."""


class CameraCount(Counted):
    """The events of a camera."""

    site: str
    camera: str


class LabelCount(Counted):
    """The events of a label."""

    label: str


class DayCount(Counted):
    """The events of a day."""

    day: str


class Statistics(BaseModel):
    """Events in numbers, by when they began."""

    zone: str
    total: Counted
    by_hour: list[int] = Field(min_length=24, max_length=24)
    """From midnight."""
    by_weekday: list[int] = Field(min_length=7, max_length=7)
    """From Monday."""
    by_camera: list[CameraCount]
    by_label: list[LabelCount]
    by_day: list[DayCount]
    """The last year at most."""


def event_facts(queries: CameraQueries, event: RecordedEvent) -> EventFacts:
    """An event as JSON has it."""
    state = queries.monitor_sites.state_of(event)
    ended = None if state == "going on" else event.until
    mark: Feedback | None = queries.feedback(event)
    return EventFacts(
        key=event.key,
        site=event.site,
        camera=event.camera,
        label=event.label,
        started=format_time(event.started),
        ended=None if ended is None else format_time(ended),
        seconds=None if ended is None else round(ended - event.started, 3),
        state=state,
        is_muted=event.is_muted,
        is_alerted=event.is_alerted,
        probability=event.probability,
        mark=mark.mark if mark else "",
        mark_label=mark.label if mark else "",
        snapshot=_event_file(queries, event, "snapshot"),
        clip=_event_file(queries, event, "clip"),
        page=f"/cameras/events/{event.key}",
    )


def event_list(queries: CameraQueries, page: EventPage) -> EventList:
    """A piece of a long list as JSON has it."""
    events = [event_facts(queries, event) for event in page.events]
    return EventList(events=events, total=page.total, next=page.next or None)


def camera_facts(queries: CameraQueries, camera: CameraStatus) -> CameraFacts:
    """A camera as JSON has it."""
    pictured = camera.newest_with_snapshot
    is_there = pictured is not None and queries.monitor_sites.file_state(pictured, "snapshot") == "there"
    return CameraFacts(
        site=camera.site,
        name=camera.name,
        state=camera.state,
        since=None if camera.since is None else format_time(camera.since),
        reason=camera.reason,
        last_event=event_facts(queries, camera.newest_event) if camera.newest_event else None,
        picture=f"/api/events/{pictured.key}/snapshot" if pictured and is_there else None,
    )


def statistics_facts(numbers: EventStatistics, zone: str) -> Statistics:
    """Numbers as JSON has them."""
    return Statistics(
        zone=zone,
        total=Counted(**_count_fields(numbers.total)),
        by_hour=numbers.by_hour,
        by_weekday=numbers.by_weekday,
        by_camera=[
            CameraCount(site=site, camera=name, **_count_fields(one)) for (site, name), one in numbers.by_camera
        ],
        by_label=[LabelCount(label=label, **_count_fields(one)) for label, one in numbers.by_label],
        by_day=[DayCount(day=day.isoformat(), **_count_fields(one)) for day, one in numbers.by_day],
    )


def _count_fields(counts: FeedbackCounts) -> dict:
    names = ("count", "right", "wrong", "share_confirmed")
    return {name: getattr(counts, name) for name in names}


def _event_file(queries: CameraQueries, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> EventFile:
    state = queries.monitor_sites.file_state(event, kind)
    return EventFile(state=state, url=f"/api/events/{event.key}/{kind}" if state == "there" else None)
