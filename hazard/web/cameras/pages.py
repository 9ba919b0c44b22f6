"""The pages of cameras: the list of cameras and events, one event, and the statistics."""

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
from hazard.web.cameras.schemas import make_camera_facts, make_event_facts
from hazard.web.cameras.statistics import WEEKDAYS, EventStatistics, FeedbackCounts
from hazard.web.templates import render

NAV_ENTRY = "Cameras"
INITIAL_ROWS = 60
"""The number of events that the list shows at first."""

pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class FilterForm:
    """The filters as the user filled them in."""

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
        """Whether any filter is set."""
        return self.event_filter != EventFilter()

    def query(self, **more: str) -> str:
        """Return the filters as a URL's query, with `more` values added."""
        values = {"site": self.site, "camera": self.camera, "label": self.label, "from": self.first, "to": self.last,
               "mark": self.mark, "zone": self.named_zone}  # fmt: skip
        return urlencode({name: value for name, value in (values | more).items() if value})

    @property
    def api_query(self) -> str:
        """The filters as a query of the API."""
        values = {
            "site": self.site,
            "camera": self.camera,
            "label": self.label,
            "mark": self.mark,
            "zone": self.zone.key,
        }
        limits = (("since", self.event_filter.since), ("before", self.event_filter.before))
        times = {name: format_time(seconds) for name, seconds in limits if seconds}
        return urlencode({name: value for name, value in (values | times).items() if value})


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
    """Return the filters of a request, from the first day to the end of the last. Raises RequestError 422."""
    since = parse_or_reject(lambda: parse_moment(first, zone, name="from"))
    before = parse_or_reject(lambda: parse_moment(last, zone, name="to", days=1))
    event_filter = EventFilter(site, camera, label, since, before, mark)
    return FilterForm(event_filter, site, camera, label, first, last, mark, zone, named_zone)


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
    """Show the cameras and their events. With `part`, return only the part that changes."""
    page = parse_or_reject(lambda: queries.find_page(filter_form.event_filter, cursor=cursor, limit=limit))
    unmarked = (
        queries.find_events(replace(filter_form.event_filter, feedback="none"))
        if filter_form.mark in ("", "none")
        else []
    )
    values = _make_shared_values(queries, filter_form) | {
        "cameras": [
            make_camera_facts(queries, camera) for camera in queries.monitor_sites.list_cameras(filter_form.site)
        ],
        "events": [make_event_facts(queries, event) for event in page.events],
        "total": page.total,
        "unmarked": len(unmarked),
        "more": limit + INITIAL_ROWS if page.next and not cursor and limit + INITIAL_ROWS <= MAX_EVENTS_PER_PAGE else 0,
        "older": f"/cameras?{filter_form.query(cursor=page.next)}" if page.next else "",
        "newest": f"/cameras?{filter_form.query()}" if cursor else "",
    }
    if not part:
        return render("cameras.j2", nav_entry=NAV_ENTRY, **values)
    return tagged_response(request, bytes(render("cameras_live.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/events/{key}")
def event_page(request: Request, event: EventDep, queries: QueriesDep, zone: ZoneDep, part: bool = False) -> Response:
    """Show one event. With `part`, return only its content, for the dialog over the list."""
    values: dict[str, Any] = {
        "event": make_event_facts(queries, event),
        "labels": _other_labels(queries.read_model_labels(), event.label),
        "local": _make_local_time_formatter(zone),
        "is_alone": not part,
    }
    if not part:
        return render("cameras_event_page.j2", nav_entry=NAV_ENTRY, **values)
    return tagged_response(request, bytes(render("cameras_event.j2", **values).body), "text/html; charset=utf-8")


@pages.get("/cameras/statistics")
def statistics_page(queries: QueriesDep, filter_form: FilterFormDep) -> Response:
    """Show the statistics of events."""
    statistics = queries.compute_statistics(filter_form.event_filter, filter_form.zone)
    return render(
        "cameras_statistics.j2",
        nav_entry=NAV_ENTRY,
        **_make_shared_values(queries, filter_form),
        **_make_chart_values(statistics),
    )


@dataclass(frozen=True)
class ChartBar:
    """One bar of a chart. Its height is a percentage of the chart's height."""

    name: str
    count: int
    height: float
    counts: FeedbackCounts = FeedbackCounts()  # noqa: RUF009 - it is frozen


def _make_chart_values(statistics: EventStatistics) -> dict[str, Any]:
    days = [(f"{day.day} {day:%b %Y}", counts) for day, counts in statistics.by_day]
    largest = max((counts.count for _, counts in days), default=0)
    return {
        "total": statistics.total,
        "hours": make_bars([f"{hour:02}:00" for hour in range(24)], statistics.by_hour),
        "weekdays": make_bars(WEEKDAYS, statistics.by_weekday),
        "days": [ChartBar(name, counts.count, _percentage(counts.count, largest), counts) for name, counts in days],
        "largest_day": largest,
        "camera_rows": [(name, site, counts) for (site, name), counts in statistics.by_camera],
        "label_rows": [(name, "", counts) for name, counts in statistics.by_label],
        "percentage": _percentage,
    }


def make_bars(names: Sequence[str], counts: Sequence[int]) -> list[ChartBar]:
    """Return the bars of a chart. The largest is as high as the chart."""
    largest = max(counts, default=0)
    return [ChartBar(name, count, _percentage(count, largest)) for name, count in zip(names, counts, strict=True)]


def _percentage(count: int, largest: int) -> float:
    return round(100 * count / largest, 2) if largest else 0.0


def _make_shared_values(queries: QueriesDep, filter_form: FilterForm) -> dict[str, Any]:
    """Return the template values that the list and the statistics share: the filters and their choices."""
    cameras = [camera for camera in queries.monitor_sites.list_cameras() if filter_form.site in ("", camera.site)]
    return {
        "form": filter_form,
        "sites": list(queries.monitor_sites.sites),
        "camera_names": sorted({camera.name for camera in cameras} | ({filter_form.camera} - {""})),
        "label_names": sorted({*queries.monitor_sites.list_labels(), filter_form.label} - {""}),
        "zone": filter_form.zone.key,
        "local": _make_local_time_formatter(filter_form.zone),
    }


def _make_local_time_formatter(zone: ZoneInfo) -> Callable[[str], str]:
    """Return a function that formats a time in a zone, with the year if it is not the current one.

    The page's script uses the same format, in the browser's time zone.
    """

    def local(moment: str) -> str:
        time = datetime.fromisoformat(moment).astimezone(zone)
        year = "" if time.year == datetime.now(zone).year else f" {time.year}"
        return f"{time.day} {time:%b}{year}, {time:%H:%M:%S}"

    return local


def _other_labels(labels: Sequence[tuple[str, ...]], own: str) -> list[str]:
    """Return the labels that a wrong event may have, from the models with more than two labels that know its own."""
    return sorted({label for names in labels if own in names and len(names) > 2 for label in names} - {own})


router = APIRouter()
"""The routes of the API and the pages."""
router.include_router(camera_routes.router)
router.include_router(pages)
