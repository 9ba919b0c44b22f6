"""The answers of the cameras API, as OpenAPI describes them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hazard.web.cameras.events import RecordedEvent, format_time
from hazard.web.cameras.feedback import MAX_LABEL_LENGTH, Feedback, Verdict
from hazard.web.cameras.queries import CameraQueries, EventPage
from hazard.web.cameras.sites import CameraState, CameraStatus, FileState, RecordedEventState
from hazard.web.cameras.statistics import EventStatistics, FeedbackCounts


class EventFile(BaseModel):
    """A snapshot or a clip of an event."""

    state: FileState
    url: str | None
    """The URL of the file; null if it does not exist."""


class EventFacts(BaseModel):
    """An event of a camera. Times are UTC."""

    key: str
    site: str
    camera: str
    label: str
    started: str
    ended: str | None
    """The end; null while the event goes on. For an interrupted event, the last time that it was seen."""
    seconds: float | None
    state: RecordedEventState
    is_muted: bool
    """Whether no alert was sent because the camera had too many alerts within a minute."""
    is_alerted: bool
    probability: float
    """The highest probability of the event."""
    mark: Verdict
    """The user's verdict: right, wrong, or empty."""
    mark_label: str
    """The correct label of a wrong event, if the user chose one."""
    snapshot: EventFile
    clip: EventFile
    page: str


class EventList(BaseModel):
    """A page of events, newest first."""

    events: list[EventFacts]
    total: int
    """The number of events on all pages."""
    next: str | None
    """The value of `cursor` for the next page; null on the last."""


class CameraFacts(BaseModel):
    """The state of a camera."""

    site: str
    name: str
    state: CameraState
    since: str | None
    """The time since when the camera is offline or not watched, if known."""
    reason: str
    last_event: EventFacts | None
    picture: str | None
    """The URL of the newest snapshot."""


class CameraList(BaseModel):
    """The cameras of all sites."""

    cameras: list[CameraFacts]


class NewMark(BaseModel):
    """A user's feedback on an event."""

    model_config = ConfigDict(extra="forbid")

    mark: Verdict
    """Right or wrong; empty removes the mark."""
    label: str = Field("", max_length=MAX_LABEL_LENGTH)
    """The correct label of a wrong event."""


class Counted(BaseModel):
    """The number of events, and how many of them users marked right or wrong."""

    count: int
    right: int
    wrong: int
    share_confirmed: float | None
    """The share of right events among the marked ones; null if none is marked."""


class CameraCount(Counted):
    """The event counts of a camera."""

    site: str
    camera: str


class LabelCount(Counted):
    """The event counts of a label."""

    label: str


class DayCount(Counted):
    """The event counts of a day."""

    day: str


class Statistics(BaseModel):
    """Event counts, by the start of the events."""

    zone: str
    total: Counted
    by_hour: list[int] = Field(min_length=24, max_length=24)
    """Events of each hour, from midnight."""
    by_weekday: list[int] = Field(min_length=7, max_length=7)
    """Events of each weekday, from Monday."""
    by_camera: list[CameraCount]
    by_label: list[LabelCount]
    by_day: list[DayCount]
    """Events of each day, of at most the last year."""


def make_event_facts(queries: CameraQueries, event: RecordedEvent) -> EventFacts:
    """Return an event as the API answers it."""
    state = queries.monitor_sites.event_state(event)
    ended = None if state == "going on" else event.until
    feedback: Feedback | None = queries.get_feedback(event)
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
        mark=feedback.mark if feedback else "",
        mark_label=feedback.label if feedback else "",
        snapshot=_event_file(queries, event, "snapshot"),
        clip=_event_file(queries, event, "clip"),
        page=f"/cameras/events/{event.key}",
    )


def make_event_list(queries: CameraQueries, page: EventPage) -> EventList:
    """Return a page of events as the API answers it."""
    events = [make_event_facts(queries, event) for event in page.events]
    return EventList(events=events, total=page.total, next=page.next or None)


def make_camera_facts(queries: CameraQueries, camera: CameraStatus) -> CameraFacts:
    """Return a camera as the API answers it."""
    event = camera.newest_with_snapshot
    has_snapshot = event is not None and queries.monitor_sites.file_state(event, "snapshot") == "there"
    return CameraFacts(
        site=camera.site,
        name=camera.name,
        state=camera.state,
        since=None if camera.since is None else format_time(camera.since),
        reason=camera.reason,
        last_event=make_event_facts(queries, camera.newest_event) if camera.newest_event else None,
        picture=f"/api/events/{event.key}/snapshot" if event and has_snapshot else None,
    )


def make_statistics(statistics: EventStatistics, zone: str) -> Statistics:
    """Return statistics as the API answers them."""
    return Statistics(
        zone=zone,
        total=Counted(**_count_fields(statistics.total)),
        by_hour=statistics.by_hour,
        by_weekday=statistics.by_weekday,
        by_camera=[
            CameraCount(site=site, camera=name, **_count_fields(counts))
            for (site, name), counts in statistics.by_camera
        ],
        by_label=[LabelCount(label=label, **_count_fields(counts)) for label, counts in statistics.by_label],
        by_day=[DayCount(day=day.isoformat(), **_count_fields(counts)) for day, counts in statistics.by_day],
    )


def _count_fields(counts: FeedbackCounts) -> dict:
    names = ("count", "right", "wrong", "share_confirmed")
    return {name: getattr(counts, name) for name in names}


def _event_file(queries: CameraQueries, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> EventFile:
    state = queries.monitor_sites.file_state(event, kind)
    return EventFile(state=state, url=f"/api/events/{event.key}/{kind}" if state == "there" else None)
