"""The pages of what cameras saw: how they stand and what happened, one event, numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from hazard.web.cameras import routes as camera_routes
from hazard.web.cameras.events import as_time
from hazard.web.cameras.queries import Marked, Wanted, parse_moment
from hazard.web.cameras.routes import MOST, Event, Known, Name, Short, Zone, tagged, valid
from hazard.web.cameras.schemas import camera_facts, event_facts
from hazard.web.cameras.statistics import DAYS, Figures, Tally
from hazard.web.templates import render

HERE = "Cameras"
ROWS = 60
"""Of the list, at first."""

pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Form:
    """The filters as a person filled them in."""

    wanted: Wanted
    site: str
    camera: str
    label: str
    first: str
    last: str
    mark: str
    zone: ZoneInfo
    named_zone: str

    @property
    def is_filtered(self) -> bool:
        """Whether anything is asked for."""
        return self.wanted != Wanted()

    def query(self, **more: str) -> str:
        """These filters as a part of an address."""
        own = {"site": self.site, "camera": self.camera, "label": self.label, "from": self.first, "to": self.last,
               "mark": self.mark, "zone": self.named_zone}  # fmt: skip
        return urlencode({name: value for name, value in (own | more).items() if value})

    @property
    def api_query(self) -> str:
        """The same, as programs ask for it."""
        wanted = self.wanted
        own = {"site": self.site, "camera": self.camera, "label": self.label, "mark": self.mark, "zone": self.zone.key}
        moments = {name: as_time(at) for name, at in (("since", wanted.since), ("before", wanted.before)) if at}
        return urlencode({name: value for name, value in (own | moments).items() if value})


def form(
    zone: Zone,
    site: Name = "",
    camera: Name = "",
    label: Name = "",
    first: Annotated[str, Query(alias="from", max_length=80)] = "",
    last: Annotated[str, Query(alias="to", max_length=80)] = "",
    mark: Marked = "",
    named_zone: Annotated[str, Query(alias="zone", max_length=80)] = "",
) -> Form:
    """Filters, from the first day to the end of the last."""
    since = valid(lambda: parse_moment(first, zone, name="from"))
    before = valid(lambda: parse_moment(last, zone, name="to", days=1))
    wanted = Wanted(site, camera, label, since, before, mark)
    return Form(wanted, site, camera, label, first, last, mark, zone, named_zone)


Filled = Annotated[Form, Depends(form)]


@pages.get("/cameras")
def cameras_page(
    request: Request,
    sights: Known,
    asked: Filled,
    limit: Annotated[int, Query(ge=1, le=MOST)] = ROWS,
    cursor: Short = "",
    part: bool = False,
) -> Response:
    """How the cameras stand and what they saw; `part`: only what changes."""
    page = valid(lambda: sights.page(asked.wanted, cursor=cursor, limit=limit))
    unmarked = sights.found(replace(asked.wanted, marked="none")) if asked.mark in ("", "none") else []
    values = _shared(sights, asked) | {
        "cameras": [camera_facts(sights, view) for view in sights.watch.cameras(asked.site)],
        "events": [event_facts(sights, event) for event in page.events],
        "total": page.total,
        "unmarked": len(unmarked),
        "more": limit + ROWS if page.next and not cursor and limit + ROWS <= MOST else 0,
        "older": f"/cameras?{asked.query(cursor=page.next)}" if page.next else "",
        "newest": f"/cameras?{asked.query()}" if cursor else "",
    }
    if not part:
        return render("watch.j2", here=HERE, **values)
    return tagged(request, bytes(render("watch_live.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/events/{key}")
def event_page(request: Request, event: Event, sights: Known, zone: Zone, part: bool = False) -> Response:
    """One event; `part`: for the window over the list."""
    values: dict[str, Any] = {
        "event": event_facts(sights, event),
        "labels": _other_labels(sights.labels(), event.label),
        "local": _local(zone),
        "is_alone": not part,
    }
    if not part:
        return render("watch_one.j2", here=HERE, **values)
    return tagged(request, bytes(render("watch_event.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/statistics")
def statistics_page(sights: Known, asked: Filled) -> Response:
    """Events in numbers."""
    numbers = sights.figures(asked.wanted, asked.zone)
    return render("watch_statistics.j2", here=HERE, **_shared(sights, asked), **_charts(numbers))


@dataclass(frozen=True)
class Bar:
    """One value of a chart; heights and widths are parts of a hundred."""

    name: str
    count: int
    height: float
    tally: Tally = Tally()  # noqa: RUF009 - it is frozen


def _charts(numbers: Figures) -> dict[str, Any]:
    days = [(f"{day.day} {day:%b %Y}", tally) for day, tally in numbers.by_day]
    most = max((tally.count for _, tally in days), default=0)
    return {
        "total": numbers.total,
        "hours": bars([f"{hour:02}:00" for hour in range(24)], numbers.by_hour),
        "weekdays": bars(DAYS, numbers.by_weekday),
        "days": [Bar(name, tally.count, _part(tally.count, most), tally) for name, tally in days],
        "most": most,
        "camera_rows": [(name, site, tally) for (site, name), tally in numbers.by_camera],
        "label_rows": [(name, "", tally) for name, tally in numbers.by_label],
        "part": _part,
    }


def bars(names: Sequence[str], counts: Sequence[int]) -> list[Bar]:
    """The values of a chart, the largest as high as the chart."""
    most = max(counts, default=0)
    return [Bar(name, count, _part(count, most)) for name, count in zip(names, counts, strict=True)]


def _part(count: int, most: int) -> float:
    return round(100 * count / most, 2) if most else 0.0


def _shared(sights: Known, asked: Form) -> dict[str, Any]:
    """What the list and the numbers have in common: filters and what may be chosen."""
    views = sights.watch.cameras()
    chosen = [view for view in views if asked.site in ("", view.site)]
    return {
        "form": asked,
        "sites": list(sights.watch.sites),
        "camera_names": sorted({view.name for view in chosen} | ({asked.camera} - {""})),
        "label_names": sorted({*sights.watch.labels(), asked.label} - {""}),
        "zone": asked.zone.key,
        "local": _local(asked.zone),
    }


def _local(zone: ZoneInfo) -> Callable[[str], str]:
    """A moment as people read it, with its year where that is another one.

    The script of the page writes it alike, in the browser's own zone.
    """

    def local(moment: str) -> str:
        time = datetime.fromisoformat(moment).astimezone(zone)
        year = "" if time.year == datetime.now(zone).year else f" {time.year}"
        return f"{time.day} {time:%b}{year}, {time:%H:%M:%S}"

    return local


def _other_labels(labels: Sequence[tuple[str, ...]], own: str) -> list[str]:
    """What a wrong event may have been: asked where a model knows more than two labels."""
    return sorted({label for names in labels if own in names and len(names) > 2 for label in names} - {own})


router = APIRouter()
"""Pages and API together."""
router.include_router(camera_routes.router)
router.include_router(pages)
