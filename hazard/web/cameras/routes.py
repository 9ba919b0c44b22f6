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

from features.errors import EnvironmentStopped
from hazard.web.api.schemas import binary, problems
from hazard.web.cameras.events import Seen
from hazard.web.cameras.feedback import LONGEST_LABEL, corrections, corrections_csv
from hazard.web.cameras.file_response import file_answer
from hazard.web.cameras.queries import Marked, Sights, Wanted, open_sights, parse_moment, parse_zone
from hazard.web.cameras.schemas import (
    CameraList,
    EventFacts,
    EventList,
    NewMark,
    Statistics,
    camera_facts,
    event_facts,
    event_list,
    statistics,
)
from hazard.web.errors import Refused

MOST = 500
Name = Annotated[str, Query(max_length=200)]
Short = Annotated[str, Query(max_length=80)]
Key = Annotated[str, Path(pattern="^[0-9a-f]{24}$")]
NOT_CHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names is still so"}}
Result = TypeVar("Result")
_OPENING = threading.Lock()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Logs are read from the start of the server on."""
    sights = _opened(app)
    yield
    sights.watch.close()


router = APIRouter(lifespan=_lifespan)


def sights_of(request: Request) -> Sights:
    """What cameras saw, as the application knows it."""
    return _opened(request.app)


def zone_of(sights: Annotated[Sights, Depends(sights_of)], zone: Short = "") -> ZoneInfo:
    """Of days and hours; the server's own where none is named."""
    return valid(lambda: parse_zone(zone, sights.zone))


def wanted(
    zone: Annotated[ZoneInfo, Depends(zone_of)],
    site: Name = "",
    camera: Name = "",
    label: Name = "",
    since: Short = "",
    before: Short = "",
    mark: Marked = "",
) -> Wanted:
    """Filters of events; `since` and `before` are days, or times with their zone."""
    first = valid(lambda: parse_moment(since, zone, name="since"))
    last = valid(lambda: parse_moment(before, zone, name="before"))
    return Wanted(site, camera, label, first, last, mark)


def event_of(key: Key, sights: Annotated[Sights, Depends(sights_of)]) -> Seen:
    """The event of an address. Raises Refused."""
    sights.watch.look()
    if (event := sights.watch.event(key)) is None:
        raise Refused(404, "no such event; the log may have forgotten it")
    return event


Known = Annotated[Sights, Depends(sights_of)]
Asked = Annotated[Wanted, Depends(wanted)]
Zone = Annotated[ZoneInfo, Depends(zone_of)]
Event = Annotated[Seen, Depends(event_of)]


@router.get("/api/cameras", response_model=CameraList, responses={**NOT_CHANGED, **problems(422)})
def list_cameras(request: Request, sights: Known, site: Name = "") -> Response:
    """The cameras of all sites, or of one: whether they are up, and what they saw last."""
    sights.watch.look()
    return as_json(request, CameraList(cameras=[camera_facts(sights, one) for one in sights.watch.cameras(site)]))


@router.get("/api/events", response_model=EventList, responses={**NOT_CHANGED, **problems(422)})
def list_events(
    request: Request,
    sights: Known,
    asked: Asked,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    cursor: Short = "",
) -> Response:
    """Events, newest first."""
    return as_json(request, event_list(sights, valid(lambda: sights.page(asked, cursor=cursor, limit=limit))))


@router.get("/api/events/{key}", response_model=EventFacts, responses=problems(404, 422))
def show_event(event: Event, sights: Known) -> EventFacts:
    """One event."""
    return event_facts(sights, event)


@router.get(
    "/api/events/{key}/snapshot",
    response_class=Response,
    responses={200: binary("image/jpeg", said="The picture when it began"), **NOT_CHANGED, **problems(404, 422)},
)
def show_snapshot(event: Event, sights: Known, request: Request) -> Response:
    """The picture at the moment of the event."""
    return _file(event, sights, request, "snapshot")


@router.get(
    "/api/events/{key}/clip",
    response_class=Response,
    responses={
        200: binary("video/mp4", said="The event with what came before and after"),
        206: binary("video/mp4", said="A part of it"),
        416: {"description": "A range that is not there"},
        **NOT_CHANGED,
        **problems(404, 422),
    },
)
def show_clip(event: Event, sights: Known, request: Request) -> Response:
    """The clip of the event; ranges may be asked for."""
    return _file(event, sights, request, "clip")


@router.post("/api/events/{key}/mark", response_model=EventFacts, responses=problems(404, 422, 503))
def mark_event(event: Event, sights: Known, said: NewMark) -> EventFacts:
    """What a person says of the event: right, wrong, or nothing any more."""
    if said.label and said.mark != "wrong":
        raise Refused(422, "label: it is said of events that are wrong")
    try:
        sights.put_mark(event, said.mark, said.label)
    except EnvironmentStopped as error:
        raise Refused(503, str(error)) from None
    return event_facts(sights, event)


@router.get("/api/statistics", response_model=Statistics, responses={**NOT_CHANGED, **problems(422)})
def show_statistics(request: Request, sights: Known, asked: Asked, zone: Zone) -> Response:
    """Events by hour, weekday, camera, label and day, and the share that was confirmed."""
    return as_json(request, statistics(sights.figures(asked, zone), zone.key))


@router.get(
    "/api/corrections.csv",
    response_class=Response,
    responses={200: binary("text/csv", said="path,label,start,end: a row a marked clip"), **problems(422)},
)
def show_corrections(
    sights: Known,
    site: Name = "",
    other: Annotated[str, Query(max_length=LONGEST_LABEL)] = "",
    removed: bool = False,
) -> Response:
    """The marks of a site for training: paths are names in its monitor's folder of clips.

    Wrong events get the label that was said, else `other`, else the other one of the model's two labels, else none,
    which leaves the clip out. Clips that are gone are in it only with `removed=true`.
    """
    name = site or (next(iter(sights.marks)) if len(sights.marks) == 1 else "")
    if name not in sights.marks:
        raise Refused(422, f"site: expected one of {', '.join(sights.marks) or 'none, as no monitor is set up'}")
    rows = corrections(sights.marked_clips(name, with_removed=removed), sights.labels(), other=other)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''corrections-{quote(name, safe='')}.csv"}
    return PlainTextResponse(corrections_csv(rows), headers=headers, media_type="text/csv")


def as_json(request: Request, answer: BaseModel) -> Response:
    """An answer with its name, so that who has it already is told so and no more."""
    return tagged(request, answer.model_dump_json().encode(), "application/json")


def tagged(request: Request, content: bytes, kind: str) -> Response:
    """Content by its digest: 304 where the asker has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


def _file(event: Seen, sights: Sights, request: Request, kind: Literal["snapshot", "clip"]) -> Response:
    opened = sights.watch.open_file(event, kind)
    if opened is None:
        said = {"coming": "it is not there yet", "removed": "it was removed", "none": "none was made"}
        raise Refused(404, f"no {kind}: {said.get(sights.watch.file_state(event, kind), 'it was removed')}")
    types = {"snapshot": ("image/jpeg", "jpg"), "clip": ("video/mp4", "mp4")}
    content, ending = types[kind]
    return file_answer(opened, request, kind=content, name=f"{kind}-{event.key}.{ending}")


def _opened(app: FastAPI) -> Sights:
    with _OPENING:
        if not hasattr(app.state, "sights"):
            app.state.sights = open_sights(app.state.settings)
        return app.state.sights


def valid(make: Callable[[], Result]) -> Result:
    """What a request says. Raises Refused where it is wrong."""
    try:
        return make()
    except ValueError as error:
        raise Refused(422, str(error)) from None
