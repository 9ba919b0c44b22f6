"""The JSON API of cameras: their states, events, files, feedback and statistics."""

import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from features.errors import RuntimeEnvironmentError
from hazard.web.api.schemas import describe_binary, describe_errors
from hazard.web.cameras.events import RecordedEvent
from hazard.web.cameras.feedback import MAX_LABEL_LENGTH, format_corrections_csv, make_corrections
from hazard.web.cameras.file_response import make_file_response
from hazard.web.cameras.queries import (
    CameraQueries,
    EventFilter,
    FeedbackFilter,
    open_camera_queries,
    parse_moment,
    parse_zone,
)
from hazard.web.cameras.schemas import (
    CameraList,
    EventFacts,
    EventList,
    NewMark,
    Statistics,
    make_camera_facts,
    make_event_facts,
    make_event_list,
    make_statistics,
)
from hazard.web.errors import RequestError

MAX_EVENTS_PER_PAGE = 500
NameQuery = Annotated[str, Query(max_length=200)]
ShortQuery = Annotated[str, Query(max_length=80)]
EventKey = Annotated[str, Path(pattern="^[0-9a-f]{24}$")]
NOT_CHANGED_RESPONSE: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not changed since the answer that If-None-Match names"}
}
Result = TypeVar("Result")
_OPEN_LOCK = threading.Lock()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the monitors' logs when the server starts, and close them when it stops."""
    queries = _get_or_open_queries(app)
    yield
    queries.monitor_sites.close()


router = APIRouter(lifespan=_lifespan)


def get_queries(request: Request) -> CameraQueries:
    """Return the camera queries of the application."""
    return _get_or_open_queries(request.app)


def get_zone(queries: Annotated[CameraQueries, Depends(get_queries)], zone: ShortQuery = "") -> ZoneInfo:
    """Return the time zone of a request, by default the server's. Raises RequestError 422."""
    return parse_or_reject(lambda: parse_zone(zone, queries.zone))


def get_event_filter(
    zone: Annotated[ZoneInfo, Depends(get_zone)],
    site: NameQuery = "",
    camera: NameQuery = "",
    label: NameQuery = "",
    since: ShortQuery = "",
    before: ShortQuery = "",
    mark: FeedbackFilter = "",
) -> EventFilter:
    """Return the filter of a request. `since` and `before` are days or times. Raises RequestError 422."""
    since_seconds = parse_or_reject(lambda: parse_moment(since, zone, name="since"))
    before_seconds = parse_or_reject(lambda: parse_moment(before, zone, name="before"))
    return EventFilter(site, camera, label, since_seconds, before_seconds, mark)


def get_event(key: EventKey, queries: Annotated[CameraQueries, Depends(get_queries)]) -> RecordedEvent:
    """Return the event of a path. Raises RequestError 404."""
    queries.monitor_sites.refresh()
    if (event := queries.monitor_sites.find_event(key)) is None:
        raise RequestError(404, "no such event; it may have left the log")
    return event


QueriesDep = Annotated[CameraQueries, Depends(get_queries)]
FilterDep = Annotated[EventFilter, Depends(get_event_filter)]
ZoneDep = Annotated[ZoneInfo, Depends(get_zone)]
EventDep = Annotated[RecordedEvent, Depends(get_event)]


@router.get("/api/cameras", response_model=CameraList, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def list_cameras(request: Request, queries: QueriesDep, site: NameQuery = "") -> Response:
    """List the cameras of all sites, or of one, with their state and their last event."""
    queries.monitor_sites.refresh()
    return json_response(
        request,
        CameraList(cameras=[make_camera_facts(queries, camera) for camera in queries.monitor_sites.list_cameras(site)]),
    )


@router.get("/api/events", response_model=EventList, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def list_events(
    request: Request,
    queries: QueriesDep,
    event_filter: FilterDep,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS_PER_PAGE)] = 50,
    cursor: ShortQuery = "",
) -> Response:
    """List events, newest first."""
    return json_response(
        request,
        make_event_list(queries, parse_or_reject(lambda: queries.find_page(event_filter, cursor=cursor, limit=limit))),
    )


@router.get("/api/events/{key}", response_model=EventFacts, responses=describe_errors(404, 422))
def show_event(event: EventDep, queries: QueriesDep) -> EventFacts:
    """Return one event."""
    return make_event_facts(queries, event)


@router.get(
    "/api/events/{key}/snapshot",
    response_class=Response,
    responses={
        200: describe_binary("image/jpeg", description="The frame at the start of the event"),
        **NOT_CHANGED_RESPONSE,
        **describe_errors(404, 422),
    },
)
def show_snapshot(event: EventDep, queries: QueriesDep, request: Request) -> Response:
    """Return the snapshot of an event."""
    return _event_file_response(event, queries, request, "snapshot")


@router.get(
    "/api/events/{key}/clip",
    response_class=Response,
    responses={
        200: describe_binary("video/mp4", description="The event with the seconds before and after it"),
        206: describe_binary("video/mp4", description="The requested range"),
        416: {"description": "The range is outside the file"},
        **NOT_CHANGED_RESPONSE,
        **describe_errors(404, 422),
    },
)
def show_clip(event: EventDep, queries: QueriesDep, request: Request) -> Response:
    """Return the clip of an event. Range requests are supported."""
    return _event_file_response(event, queries, request, "clip")


@router.post("/api/events/{key}/mark", response_model=EventFacts, responses=describe_errors(404, 422, 503))
def mark_event(event: EventDep, queries: QueriesDep, new_mark: NewMark) -> EventFacts:
    """Mark an event as right or wrong, or remove its mark."""
    if new_mark.label and new_mark.mark != "wrong":
        raise RequestError(422, "label: only events marked wrong take a label")
    try:
        queries.save_feedback(event, new_mark.mark, new_mark.label)
    except RuntimeEnvironmentError as error:
        raise RequestError(503, str(error)) from None
    return make_event_facts(queries, event)


@router.get("/api/statistics", response_model=Statistics, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def show_statistics(request: Request, queries: QueriesDep, event_filter: FilterDep, zone: ZoneDep) -> Response:
    """Count events by hour, weekday, camera, label and day, with the share that users confirmed."""
    return json_response(request, make_statistics(queries.compute_statistics(event_filter, zone), zone.key))


@router.get(
    "/api/corrections.csv",
    response_class=Response,
    responses={
        200: describe_binary("text/csv", description="path,label,start,end: one row per marked clip"),
        **describe_errors(422),
    },
)
def show_corrections(
    queries: QueriesDep,
    site: NameQuery = "",
    other: Annotated[str, Query(max_length=MAX_LABEL_LENGTH)] = "",
    removed: bool = False,
) -> Response:
    """Return the marks of a site as corrections for training. Paths are names in the monitor's folder of clips.

    A wrong event gets the label that the user chose, else `other`, else the other label of a two-label model, else an
    empty label, which excludes the clip from training. Clips that were removed are listed only with `removed=true`.
    """
    name = site or (next(iter(queries.feedback_stores)) if len(queries.feedback_stores) == 1 else "")
    if name not in queries.feedback_stores:
        sites = ", ".join(queries.feedback_stores)
        raise RequestError(422, f"site: expected one of {sites}" if sites else "site: this server has no monitor")
    rows = make_corrections(
        queries.list_feedback(name, with_removed=removed), queries.read_model_labels(), other_label=other
    )
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''corrections-{quote(name, safe='')}.csv"}
    return PlainTextResponse(format_corrections_csv(rows), headers=headers, media_type="text/csv")


def json_response(request: Request, answer: BaseModel) -> Response:
    """Return an answer as JSON with an `ETag`, or 304 if the client has it."""
    return tagged_response(request, answer.model_dump_json().encode(), "application/json")


def tagged_response(request: Request, content: bytes, media_type: str) -> Response:
    """Return content with its digest as `ETag`, or 304 if the client has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _event_file_response(
    event: RecordedEvent, queries: CameraQueries, request: Request, kind: Literal["snapshot", "clip"]
) -> Response:
    descriptor = queries.monitor_sites.open_file(event, kind)
    if descriptor is None:
        reasons = {"coming": "it is not written yet", "none": "none was made"}
        reason = reasons.get(queries.monitor_sites.file_state(event, kind), "it was removed")
        raise RequestError(404, f"no {kind}: {reason}")
    types = {"snapshot": ("image/jpeg", "jpg"), "clip": ("video/mp4", "mp4")}
    media_type, suffix = types[kind]
    return make_file_response(descriptor, request, media_type=media_type, name=f"{kind}-{event.key}.{suffix}")


def _get_or_open_queries(app: FastAPI) -> CameraQueries:
    with _OPEN_LOCK:
        if not hasattr(app.state, "camera_queries"):
            app.state.camera_queries = open_camera_queries(app.state.settings)
        return app.state.camera_queries


def parse_or_reject(parse: Callable[[], Result]) -> Result:
    """Return a parsed value of a request. Raises RequestError 422 if it is wrong."""
    try:
        return parse()
    except ValueError as error:
        raise RequestError(422, str(error)) from None
