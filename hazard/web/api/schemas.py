"""The answers of the jobs API, as OpenAPI describes them."""

from typing import Any, Literal

from pydantic import BaseModel

from hazard.web.http.uploads import FILE_FIELD


class Problem(BaseModel):
    """The reason why a request was rejected."""

    error: str
    """One line."""
    status: int


class Links(BaseModel):
    """The URLs of a job; null for what does not exist yet."""

    self: str
    page: str
    result: str | None
    video: str | None
    annotated: str | None
    csv: str | None


class JobFacts(BaseModel):
    """One submitted video and the state of its analysis."""

    id: str
    name: str
    model: str
    state: Literal["queued", "fetching", "decoding", "done", "failed"]
    progress: float
    """0 to 1."""
    place: int
    """The position in the queue, from 1; 0 if the job is not waiting."""
    created: str
    expires: str
    seconds: float | None
    reason: str
    """The reason of a failure, or why a finished video was only partly read."""
    label: str
    confidence: float | None
    is_unknown: bool
    """Whether the video is unlike the training videos, so that its label is not reliable."""
    has_annotated: bool
    annotate_reason: str
    """The reason why a requested annotated video could not be made."""
    annotating: float | None
    """The progress of the annotated video, 0 to 1, while it is being made."""
    links: Links


class JobList(BaseModel):
    """A list of jobs, newest first."""

    jobs: list[JobFacts]


class Score(BaseModel):
    """A label and its probability."""

    label: str
    confidence: float


class Segment(BaseModel):
    """The label from `start` to `end`, in seconds from the clip's start."""

    start: float
    end: float
    label: str
    confidence: float
    top5: list[Score]


class FoundEvent(BaseModel):
    """A time span in which a label's probability stays high, in seconds from the clip's start."""

    label: str
    start: float
    end: float
    peak: float
    mean: float


class Answer(BaseModel):
    """The result of a video's analysis."""

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
    """A model that a request may choose."""

    name: str
    labels: list[str]
    positive_label: str | None
    threshold: float
    window_seconds: float
    backbone: str
    created: str


class ModelList(BaseModel):
    """The models of this server. `default` is used if a request names none."""

    models: list[ModelAnswer]
    default: str


class Health(BaseModel):
    """The health of the server."""

    status: str
    workers: int
    queued: int


_STATUS_DESCRIPTIONS = {
    400: "Malformed request, or a host name that is not accepted",
    401: "The token is missing or wrong",
    403: "Sent by a page of another site",
    404: "Does not exist",
    405: "This method is not allowed",
    408: "The request took too long to arrive",
    409: "Not done yet",
    413: "Too large",
    415: "Not a video, or not a form",
    416: "The range is outside the file",
    422: "The video cannot be used, or a value is wrong",
    429: "Too many requests; see Retry-After",
    503: "Not available now; try again later",
    507: "No room on the disk",
}


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, with 400, 401 and 403, which every route has."""
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
                        "model": {"type": "string", "description": "A name from /models"},
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
                        "url": {"type": "string", "description": "The URL of the video, http or https"},
                        "model": {"type": "string", "description": "A name from /models"},
                    },
                }
            },
        },
    }
}


def describe_binary(*media_types: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI description of an answer that is a file."""
    return {
        "description": description,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types},
    }
