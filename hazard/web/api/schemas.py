"""What the API answers, as OpenAPI describes it."""

from typing import Any, Literal

from pydantic import BaseModel

from hazard.web.http.uploads import FILE_FIELD


class Problem(BaseModel):
    """Why a request was not done."""

    error: str
    """One line."""
    status: int


class Links(BaseModel):
    """Where a job's things are; null while they are not there."""

    self: str
    page: str
    result: str | None
    video: str | None
    annotated: str | None
    csv: str | None


class JobFacts(BaseModel):
    """One video that was sent, and how far the work on it is."""

    id: str
    name: str
    model: str
    state: Literal["queued", "fetching", "decoding", "done", "failed"]
    progress: float
    """0 to 1."""
    place: int
    """In the queue, from 1; 0 where it does not wait."""
    created: str
    expires: str
    seconds: float | None
    reason: str
    """Why it failed or, of one that is done, why it was read only in part."""
    label: str
    confidence: float | None
    is_unknown: bool
    """Unlike all that the model was trained on, so that the label means little."""
    has_annotated: bool
    annotate_reason: str
    """Why there is no annotated video, where one was asked for."""
    annotating: float | None
    """How far it is, 0 to 1, while it is being made."""
    links: Links


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobFacts]


class Score(BaseModel):
    """A label and its probability."""

    label: str
    confidence: float


class Segment(BaseModel):
    """What the model sees from `start` to `end`, in seconds from the clip's start."""

    start: float
    end: float
    label: str
    confidence: float
    top5: list[Score]


class FoundEvent(BaseModel):
    """A stretch in which a label's probability stays high."""

    label: str
    start: float
    end: float
    peak: float
    mean: float


class Answer(BaseModel):
    """What the model sees in a video."""

    id: str
    name: str
    model: str
    label: str
    confidence: float | None
    duration: float | None
    status: Literal["ok", "partial", "failed"]
    reason: str
    is_unknown: bool | None
    zero_shot: list[Score]
    labels: list[str]
    positive_label: str | None
    threshold: float | None
    segment_predictions: list[Segment]
    events: list[FoundEvent]
    video_url: str


class ModelAnswer(BaseModel):
    """A model that may be chosen."""

    name: str
    labels: list[str]
    positive_label: str | None
    threshold: float
    window_seconds: float
    backbone: str
    created: str


class ModelList(BaseModel):
    """The models of this server; `default` is used where none is chosen."""

    models: list[ModelAnswer]
    default: str


class Health(BaseModel):
    """Whether the server works."""

    status: str
    workers: int
    queued: int


_STATUS_DESCRIPTIONS = {
    400: "Malformed, or the wrong host",
    401: "The token is missing",
    403: "Sent by a page of another site",
    404: "Not here",
    405: "Not this method",
    408: "Too slow",
    409: "Not yet",
    413: "Too large",
    415: "Not a video, or not a form",
    416: "A range that is not there",
    422: "A video that cannot be used, or a value that is wrong",
    429: "Too many at once; see Retry-After",
    503: "Not now",
    507: "No room on the disk",
}


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, besides those that every route has."""
    return {
        status: {"model": Problem, "description": _STATUS_DESCRIPTIONS[status]} for status in (400, 401, 403, *statuses)
    }


VIDEO_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE_FIELD],
                    "properties": {
                        FILE_FIELD: {"type": "string", "format": "binary", "description": "The video"},
                        "model": {"type": "string", "description": "One of /models"},
                    },
                    "additionalProperties": False,
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["url"],
                    "additionalProperties": False,
                    "properties": {
                        "url": {"type": "string", "description": "Where the video is: http or https"},
                        "model": {"type": "string", "description": "One of /models"},
                    },
                }
            },
        },
    }
}


def describe_binary(*media_types: str, description: str) -> dict[str, Any]:
    """An answer that is no JSON."""
    return {
        "description": description,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types},
    }
