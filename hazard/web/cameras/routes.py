"""The JSON API of what cameras saw: cameras, events, their files, marks, numbers."""

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
    camera_facts,
    event_facts,
    event_list,
    statistics_facts,
)
from hazard.web.errors import RequestError

MAX_EVENTS_PER_PAGE = 500
NameQuery = Annotated[str, Query(max_length=200)]
ShortQuery = Annotated[str, Query(max_length=80)]
EventKey = Annotated[str, Path(pattern="^[0-9a-f]{24}$")]
NOT_CHANGED_RESPONSE: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names is still so"}}
Result = TypeVar("Result")
_OPEN_LOCK = threading.Lock()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Logs are read from the start of the server on."""
    sights = _get_or_open_queries(app)
    yield
    sights.monitor_sites.close()


router = APIRouter(lifespan=_lifespan)


def get_queries(request: Request) -> CameraQueries:
    """What cameras saw, as the application knows it."""
    return _get_or_open_queries(request.app)


def get_zone(queries: Annotated[CameraQueries, Depends(get_queries)], zone: ShortQuery = "") -> ZoneInfo:
    """Of days and hours; the server's own where none is named."""
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
    """Filters of events; `since` and `before` are days, or times with their zone."""
    first = parse_or_reject(lambda: parse_moment(since, zone, name="since"))
    last = parse_or_reject(lambda: parse_moment(before, zone, name="before"))
    return EventFilter(site, camera, label, first, last, mark)


def get_event(key: EventKey, queries: Annotated[CameraQueries, Depends(get_queries)]) -> RecordedEvent:
    """The event of an address. Raises Refused."""
    queries.monitor_sites.refresh()
    if (event := queries.monitor_sites.find_event(key)) is None:
        raise RequestError(404, "no such event; the log may have forgotten it")
    return event


QueriesDep = Annotated[CameraQueries, Depends(get_queries)]
FilterDep = Annotated[EventFilter, Depends(get_event_filter)]
ZoneDep = Annotated[ZoneInfo, Depends(get_zone)]
EventDep = Annotated[RecordedEvent, Depends(get_event)]


@router.get("/api/cameras", response_model=CameraList, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def list_cameras(request: Request, queries: QueriesDep, site: NameQuery = "") -> Response:
    """The cameras of all sites, or of one: whether they are up, and what they saw last."""
    queries.monitor_sites.refresh()
    return json_response(
        request, CameraList(cameras=[camera_facts(queries, one) for one in queries.monitor_sites.cameras(site)])
    )


@router.get("/api/events", response_model=EventList, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def list_events(
    request: Request,
    queries: QueriesDep,
    event_filter: FilterDep,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS_PER_PAGE)] = 50,
    cursor: ShortQuery = "",
) -> Response:
    """Events, newest first."""
    return json_response(
        request,
        event_list(queries, parse_or_reject(lambda: queries.find_page(event_filter, cursor=cursor, limit=limit))),
    )


@router.get("/api/events/{key}", response_model=EventFacts, responses=describe_errors(404, 422))
def show_event(event: EventDep, queries: QueriesDep) -> EventFacts:
    """One event."""
    return event_facts(queries, event)


@router.get(
    "/api/events/{key}/snapshot",
    response_class=Response,
    responses={
        200: describe_binary("image/jpeg", description="The picture when it began"),
        **NOT_CHANGED_RESPONSE,
        **describe_errors(404, 422),
    },
)
def show_snapshot(event: EventDep, queries: QueriesDep, request: Request) -> Response:
    """The picture at the moment of the event."""
    return _event_file_response(event, queries, request, "snapshot")


@router.get(
    "/api/events/{key}/clip",
    response_class=Response,
    responses={
        200: describe_binary("video/mp4", description="The event with what came before and after"),
        206: describe_binary("video/mp4", description="A part of it"),
        416: {"description": "A range that is not there"},
        **NOT_CHANGED_RESPONSE,
        **describe_errors(404, 422),
    },
)
def show_clip(event: EventDep, queries: QueriesDep, request: Request) -> Response:
    """The clip of the event; ranges may be asked for."""
    return _event_file_response(event, queries, request, "clip")


@router.post("/api/events/{key}/mark", response_model=EventFacts, responses=describe_errors(404, 422, 503))
def mark_event(event: EventDep, queries: QueriesDep, new_mark: NewMark) -> EventFacts:
    """What a person says of the event: right, wrong, or nothing any more."""
    if new_mark.label and new_mark.mark != "wrong":
        raise RequestError(422, "label: it is said of events that are wrong")
    try:
        queries.save_feedback(event, new_mark.mark, new_mark.label)
    except RuntimeEnvironmentError as error:
        raise RequestError(503, str(error)) from None
    return event_facts(queries, event)


@router.get("/api/statistics", response_model=Statistics, responses={**NOT_CHANGED_RESPONSE, **describe_errors(422)})
def show_statistics(request: Request, queries: QueriesDep, event_filter: FilterDep, zone: ZoneDep) -> Response:
    """Events by hour, weekday, camera, label and day, and the share that was confirmed."""
    return json_response(request, statistics_facts(queries.compute_statistics(event_filter, zone), zone.key))


@router.get(
    "/api/corrections.csv",
    response_class=Response,
    responses={
        200: describe_binary("text/csv", description="path,label,start,end: a row a marked clip"),
        **describe_errors(422),
    },
)
def show_corrections(
    queries: QueriesDep,
    site: NameQuery = "",
    other: Annotated[str, Query(max_length=MAX_LABEL_LENGTH)] = "",
    removed: bool = False,
) -> Response:
    """The marks of a site for training: paths are names in its monitor's folder of clips.

    Wrong events get the label that was said, else `other`, else the other one of the model's two labels, else none,
    which leaves the clip out. Clips that are gone are in it only with `removed=true`.
    """
    name = site or (next(iter(queries.feedback_stores)) if len(queries.feedback_stores) == 1 else "")
    if name not in queries.feedback_stores:
        raise RequestError(
            422, f"site: expected one of {', '.join(queries.feedback_stores) or 'none, as no monitor is set up'}"
        )
    rows = make_corrections(
        queries.list_feedback(name, with_removed=removed), queries.read_model_labels(), other_label=other
    )
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''corrections-{quote(name, safe='')}.csv"}
    return PlainTextResponse(format_corrections_csv(rows), headers=headers, media_type="text/csv")


def json_response(request: Request, answer: BaseModel) -> Response:
    """An answer with its name, so that who has it already is told so and no more."""
    return tagged_response(request, answer.model_dump_json().encode(), "application/json")


def tagged_response(request: Request, content: bytes, media_type: str) -> Response:
    """Content by its digest: 304 where the asker has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _event_file_response(
    event: RecordedEvent, queries: CameraQueries, request: Request, kind: Literal["snapshot", "clip"]
) -> Response:
    opened = queries.monitor_sites.open_file(event, kind)
    if opened is None:
        said = {"coming": "it is not there yet", "removed": "it was removed", "none": "none was made"}
        raise RequestError(
            404, f"no {kind}: {said.get(queries.monitor_sites.file_state(event, kind), 'it was removed')}"
        )
    types = {"snapshot": ("image/jpeg", "jpg"), "clip": ("video/mp4", "mp4")}
    content, ending = types[kind]
    return make_file_response(opened, request, media_type=content, name=f"{kind}-{event.key}.{ending}")


def _get_or_open_queries(app: FastAPI) -> CameraQueries:
    with _OPEN_LOCK:
        if not hasattr(app.state, "sights"):
            app.state.sights = open_camera_queries(app.state.settings)
        return app.state.sights


def parse_or_reject(parse: Callable[[], Result]) -> Result:
    """What a request says. Raises Refused where it is wrong."""
    try:
        return parse()
    except ValueError as error:
        raise RequestError(422, str(error)) from None
