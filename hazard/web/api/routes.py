"""The JSON API: videos in, jobs and answers out."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from hazard.web.api.intake import Intake
from hazard.web.api.schemas import (
    VIDEO_REQUEST_BODY,
    Answer,
    Health,
    JobFacts,
    JobList,
    ModelList,
    describe_binary,
    describe_errors,
)
from hazard.web.engine.engine import Engine
from hazard.web.errors import RequestError
from hazard.web.http.guard import error_response
from hazard.web.jobs.store import VideoJob
from hazard.web.metrics import METRICS_MEDIA_TYPE, render_metrics

POLL_SECONDS = (0.05, 0.5)
"""How often a waiting request looks for its answer: at first, and at last."""
VIDEO_MEDIA_TYPES = ("video/mp4", "video/webm", "application/octet-stream")
"""What a video may be to a browser; the last is none that it plays."""
UPLOAD_ERRORS = describe_errors(408, 413, 415, 422, 429, 503, 507)

router = APIRouter()


def get_engine(request: Request) -> Engine:
    """The engine that does the work."""
    return request.app.state.engine


def get_job(id: str, request: Request) -> VideoJob:
    """The job of a path. Raises Refused."""
    job = get_engine(request).job(id)
    if job is None:
        raise RequestError(404, "no such job; it may have expired")
    return job


EngineDep = Annotated[Engine, Depends(get_engine)]
JobDep = Annotated[VideoJob, Depends(get_job)]


@router.post(
    "/predict",
    response_model=Answer,
    responses={202: {"model": JobFacts, "description": "Not done yet; Location is where it will be"}, **UPLOAD_ERRORS},
    openapi_extra=VIDEO_REQUEST_BODY,
)
async def predict(request: Request, engine: EngineDep) -> Response:
    """What the model sees in a video, in one call; a job where that takes longer than `wait_seconds`."""
    intake: Intake = request.app.state.intake
    job = await _wait_for_job(
        await intake.create_job(request), engine, request, seconds=request.app.state.settings.wait_seconds
    )
    if job.state == "failed":
        return error_response(415 if job.stage == "open" else 422, job.reason)
    answer = await run_in_threadpool(engine.answer, job.id) if job.state == "done" else None
    return JSONResponse(answer) if answer else _accepted_response(job)


@router.post(
    "/jobs", status_code=202, response_model=JobFacts, responses=UPLOAD_ERRORS, openapi_extra=VIDEO_REQUEST_BODY
)
async def submit(request: Request) -> Response:
    """Takes a video and answers at once."""
    intake: Intake = request.app.state.intake
    return _accepted_response(await intake.create_job(request))


@router.get("/jobs", response_model=JobList, responses=describe_errors(422))
def list_jobs(engine: EngineDep, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Any:
    """Jobs, newest first."""
    return {"jobs": [job.as_json() for job in engine.jobs()[:limit]]}


@router.get("/jobs/{id}", response_model=JobFacts, responses=describe_errors(404))
def show_job(job: JobDep) -> Any:
    """One job."""
    return job.as_json()


@router.delete("/jobs/{id}", status_code=204, responses=describe_errors(404))
def delete_job(job: JobDep, engine: EngineDep) -> Response:
    """Removes a job, its video and its results."""
    engine.delete(job.id)
    return Response(status_code=204)


@router.get("/jobs/{id}/result", response_model=Answer, responses=describe_errors(404, 409))
def show_result(job: JobDep, engine: EngineDep) -> Any:
    """What the model sees."""
    answer = engine.answer(job.id)
    if answer is None:
        raise RequestError(409, job.reason if job.state == "failed" else f"not done yet: {job.state}")
    return answer


@router.get(
    "/jobs/{id}/video",
    response_class=FileResponse,
    responses={
        200: describe_binary(*VIDEO_MEDIA_TYPES, description="The video"),
        206: describe_binary(*VIDEO_MEDIA_TYPES, "multipart/byteranges", description="A part of it"),
        416: {"description": "A range that is not there"},
        **describe_errors(404),
    },
)
def show_video(job: JobDep, engine: EngineDep) -> Response:
    """The video, as browsers play it; ranges may be asked for."""
    file = _require_file(engine.find_file(job.id, "video"))
    return _make_file_response(file, engine.media_type(job.id))


@router.get(
    "/jobs/{id}/annotated",
    response_class=FileResponse,
    responses={
        200: describe_binary("video/mp4", description="The annotated video"),
        202: {"model": JobFacts, "description": "It is being made"},
        206: describe_binary("video/mp4", "multipart/byteranges", description="A part of it"),
        416: {"description": "A range that is not there"},
        **describe_errors(404),
    },
)
def show_annotated(job: JobDep, engine: EngineDep) -> Response:
    """The video with what was seen drawn in, once `POST` asked for it."""
    file = engine.find_file(job.id, "annotated")
    if file is None and job.is_annotating:
        return _accepted_response(job)
    return _make_file_response(_require_file(file), "video/mp4", name="annotated.mp4")


@router.post("/jobs/{id}/annotated", status_code=202, response_model=JobFacts, responses=describe_errors(404, 409, 503))
def make_annotated(job: JobDep, engine: EngineDep) -> Response:
    """Asks for the annotated video."""
    if job.state != "done":
        raise RequestError(409, job.reason if job.state == "failed" else f"not done yet: {job.state}")
    engine.request_annotation(job.id)
    return _accepted_response(engine.job(job.id) or job)


@router.get(
    "/jobs/{id}/result.csv",
    response_class=FileResponse,
    responses={200: describe_binary("text/csv", description="A row a segment"), **describe_errors(404)},
)
def show_csv(job: JobDep, engine: EngineDep) -> Response:
    """The segments as CSV."""
    return _make_file_response(_require_file(engine.find_file(job.id, "csv")), "text/csv", name="result.csv")


@router.get(
    "/jobs/{id}/picture",
    response_class=FileResponse,
    responses={200: describe_binary("image/jpeg", description="One frame"), **describe_errors(404)},
)
def show_picture(job: JobDep, engine: EngineDep) -> Response:
    """One frame of the video."""
    return _make_file_response(_require_file(engine.find_file(job.id, "picture")), "image/jpeg")


@router.get("/models", response_model=ModelList, responses=describe_errors())
def list_models(engine: EngineDep) -> Any:
    """The models that may be chosen."""
    return {"models": [facts.as_json() for facts in engine.models.values()], "default": engine.default_model}


@router.get("/healthz", response_model=Health, responses={503: {"model": Health, "description": "Not well"}})
async def healthz(engine: EngineDep) -> Response:
    """Whether the server works; needs no token."""
    health = {
        "status": "ok" if engine.is_healthy else "no worker works",
        "workers": engine.workers,
        "queued": engine.queue_length,
    }
    return JSONResponse(health, 200 if engine.is_healthy else 503)


@router.get(
    "/metrics", response_class=Response, responses={200: describe_binary("text/plain", description="For Prometheus")}
)
def metrics(request: Request, engine: EngineDep) -> Response:
    """The server in numbers."""
    return Response(render_metrics(request.app.state.counts, engine), media_type=METRICS_MEDIA_TYPE)


async def _wait_for_job(job: VideoJob, engine: Engine, request: Request, *, seconds: float) -> VideoJob:
    """The job once it is over, or as it is after so long, or when the client has gone. No thread waits for it."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, POLL_SECONDS[0]
    while not job.is_over and loop.time() < until and not await request.is_disconnected():
        await asyncio.sleep(min(pause, max(0.0, until - loop.time())))
        pause = min(POLL_SECONDS[1], pause * 1.2)
        job = engine.job(job.id) or job
    return job


def _accepted_response(job: VideoJob) -> Response:
    return JSONResponse(job.as_json(), 202, headers={"Location": f"/jobs/{job.id}"})


def _require_file(file: Path | None) -> Path:
    if file is None or not file.is_file():
        raise RequestError(404, "not made yet, or it cannot be")
    return file


def _make_file_response(file: Path, media_type: str, *, name: str | None = None) -> Response:
    return FileResponse(file, media_type=media_type, filename=name)
