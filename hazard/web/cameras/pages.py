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
from hazard.web.cameras.events import format_time
from hazard.web.cameras.queries import EventFilter, FeedbackFilter, parse_moment
from hazard.web.cameras.routes import (
    MAX_EVENTS_PER_PAGE,
    EventDep,
    NameQuery,
    QueriesDep,
    ShortQuery,
    ZoneDep,
    parse_or_reject,
    tagged_response,
)
from hazard.web.cameras.schemas import camera_facts, event_facts
from hazard.web.cameras.statistics import WEEKDAYS, EventStatistics, FeedbackCounts
from hazard.web.templates import render

NAV_ENTRY = "Cameras"
INITIAL_ROWS = 60
"""Of the list, at first."""

pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class FilterForm:
    """The filters as a person filled them in."""

    event_filter: EventFilter
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
        return self.event_filter != EventFilter()

    def query(self, **more: str) -> str:
        """These filters as a part of an address."""
        own = {"site": self.site, "camera": self.camera, "label": self.label, "from": self.first, "to": self.last,
               "mark": self.mark, "zone": self.named_zone}  # fmt: skip
        return urlencode({name: value for name, value in (own | more).items() if value})

    @property
    def api_query(self) -> str:
        """The same, as programs ask for it."""
        wanted = self.event_filter
        own = {"site": self.site, "camera": self.camera, "label": self.label, "mark": self.mark, "zone": self.zone.key}
        moments = {name: format_time(at) for name, at in (("since", wanted.since), ("before", wanted.before)) if at}
        return urlencode({name: value for name, value in (own | moments).items() if value})


def read_filter_form(
    zone: ZoneDep,
    site: NameQuery = "",
    camera: NameQuery = "",
    label: NameQuery = "",
    first: Annotated[str, Query(alias="from", max_length=80)] = "",
    last: Annotated[str, Query(alias="to", max_length=80)] = "",
    mark: FeedbackFilter = "",
    named_zone: Annotated[str, Query(alias="zone", max_length=80)] = "",
) -> FilterForm:
    """Filters, from the first day to the end of the last."""
    since = parse_or_reject(lambda: parse_moment(first, zone, name="from"))
    before = parse_or_reject(lambda: parse_moment(last, zone, name="to", days=1))
    wanted = EventFilter(site, camera, label, since, before, mark)
    return FilterForm(wanted, site, camera, label, first, last, mark, zone, named_zone)


FilterFormDep = Annotated[FilterForm, Depends(read_filter_form)]


@pages.get("/cameras")
def cameras_page(
    request: Request,
    queries: QueriesDep,
    filter_form: FilterFormDep,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS_PER_PAGE)] = INITIAL_ROWS,
    cursor: ShortQuery = "",
    part: bool = False,
) -> Response:
    """How the cameras stand and what they saw; `part`: only what changes."""
    page = parse_or_reject(lambda: queries.find_page(filter_form.event_filter, cursor=cursor, limit=limit))
    unmarked = (
        queries.find_events(replace(filter_form.event_filter, marked="none"))
        if filter_form.mark in ("", "none")
        else []
    )
    values = _make_shared_values(queries, filter_form) | {
        "cameras": [camera_facts(queries, view) for view in queries.monitor_sites.cameras(filter_form.site)],
        "events": [event_facts(queries, event) for event in page.events],
        "total": page.total,
        "unmarked": len(unmarked),
        "more": limit + INITIAL_ROWS if page.next and not cursor and limit + INITIAL_ROWS <= MAX_EVENTS_PER_PAGE else 0,
        "older": f"/cameras?{filter_form.query(cursor=page.next)}" if page.next else "",
        "newest": f"/cameras?{filter_form.query()}" if cursor else "",
    }
    if not part:
        return render("watch.j2", nav_entry=NAV_ENTRY, **values)
    return tagged_response(request, bytes(render("watch_live.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/events/{key}")
def event_page(request: Request, event: EventDep, queries: QueriesDep, zone: ZoneDep, part: bool = False) -> Response:
    """One event; `part`: for the window over the list."""
    values: dict[str, Any] = {
        "event": event_facts(queries, event),
        "labels": _other_labels(queries.read_model_labels(), event.label),
        "local": _local_time_formatter(zone),
        "is_alone": not part,
    }
    if not part:
        return render("watch_one.j2", nav_entry=NAV_ENTRY, **values)
    return tagged_response(request, bytes(render("watch_event.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/statistics")
def statistics_page(queries: QueriesDep, filter_form: FilterFormDep) -> Response:
    """Events in numbers."""
    numbers = queries.compute_statistics(filter_form.event_filter, filter_form.zone)
    return render(
        "watch_statistics.j2",
        nav_entry=NAV_ENTRY,
        **_make_shared_values(queries, filter_form),
        **_make_chart_values(numbers),
    )


@dataclass(frozen=True)
class ChartBar:
    """One value of a chart; heights and widths are parts of a hundred."""

    name: str
    count: int
    height: float
    tally: FeedbackCounts = FeedbackCounts()  # noqa: RUF009 - it is frozen


def _make_chart_values(numbers: EventStatistics) -> dict[str, Any]:
    days = [(f"{day.day} {day:%b %Y}", tally) for day, tally in numbers.by_day]
    most = max((tally.count for _, tally in days), default=0)
    return {
        "total": numbers.total,
        "hours": make_bars([f"{hour:02}:00" for hour in range(24)], numbers.by_hour),
        "weekdays": make_bars(WEEKDAYS, numbers.by_weekday),
        "days": [ChartBar(name, tally.count, _percentage(tally.count, most), tally) for name, tally in days],
        "most": most,
        "camera_rows": [(name, site, tally) for (site, name), tally in numbers.by_camera],
        "label_rows": [(name, "", tally) for name, tally in numbers.by_label],
        "part": _percentage,
    }


def make_bars(names: Sequence[str], counts: Sequence[int]) -> list[ChartBar]:
    """The values of a chart, the largest as high as the chart."""
    most = max(counts, default=0)
    return [ChartBar(name, count, _percentage(count, most)) for name, count in zip(names, counts, strict=True)]


def _percentage(count: int, most: int) -> float:
    return round(100 * count / most, 2) if most else 0.0


def _make_shared_values(queries: QueriesDep, filter_form: FilterForm) -> dict[str, Any]:
    """What the list and the numbers have in common: filters and what may be chosen."""
    views = queries.monitor_sites.cameras()
    chosen = [view for view in views if filter_form.site in ("", view.site)]
    return {
        "form": filter_form,
        "sites": list(queries.monitor_sites.sites),
        "camera_names": sorted({view.name for view in chosen} | ({filter_form.camera} - {""})),
        "label_names": sorted({*queries.monitor_sites.labels(), filter_form.label} - {""}),
        "zone": filter_form.zone.key,
        "local": _local_time_formatter(filter_form.zone),
    }


def _local_time_formatter(zone: ZoneInfo) -> Callable[[str], str]:
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
