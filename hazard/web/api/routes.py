"""The JSON API of analysis jobs: videos, jobs, answers and models."""

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
"""The shortest and the longest pause between two checks of a waiting request."""
VIDEO_MEDIA_TYPES = ("video/mp4", "video/webm", "application/octet-stream")
"""The media types of videos. The last stands for those that browsers cannot play."""
UPLOAD_ERRORS = describe_errors(408, 413, 415, 422, 429, 503, 507)

router = APIRouter()


def get_engine(request: Request) -> Engine:
    """Return the engine of the application."""
    return request.app.state.engine


def get_job(id: str, request: Request) -> VideoJob:
    """Return the job of a path. Raises RequestError 404."""
    job = get_engine(request).get_job(id)
    if job is None:
        raise RequestError(404, "no such job; it may have expired")
    return job


EngineDep = Annotated[Engine, Depends(get_engine)]
JobDep = Annotated[VideoJob, Depends(get_job)]


@router.post(
    "/predict",
    response_model=Answer,
    responses={
        202: {"model": JobFacts, "description": "Not done yet; Location is the URL of the job"},
        **UPLOAD_ERRORS,
    },
    openapi_extra=VIDEO_REQUEST_BODY,
)
async def predict(request: Request, engine: EngineDep) -> Response:
    """Analyse a video and return the result. If that takes longer than `wait_seconds`, return the job."""
    intake: Intake = request.app.state.intake
    job = await _wait_for_job(
        await intake.create_job(request), engine, request, seconds=request.app.state.settings.wait_seconds
    )
    if job.state == "failed":
        return error_response(415 if job.stage == "open" else 422, job.reason)
    answer = await run_in_threadpool(engine.get_answer, job.id) if job.state == "done" else None
    return JSONResponse(answer) if answer else _accepted_response(job)


@router.post(
    "/jobs", status_code=202, response_model=JobFacts, responses=UPLOAD_ERRORS, openapi_extra=VIDEO_REQUEST_BODY
)
async def submit(request: Request) -> Response:
    """Queue a video for analysis and return its job at once."""
    intake: Intake = request.app.state.intake
    return _accepted_response(await intake.create_job(request))


@router.get("/jobs", response_model=JobList, responses=describe_errors(422))
def list_jobs(engine: EngineDep, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Any:
    """List jobs, newest first."""
    return {"jobs": [job.as_json() for job in engine.list_jobs()[:limit]]}


@router.get("/jobs/{id}", response_model=JobFacts, responses=describe_errors(404))
def show_job(job: JobDep) -> Any:
    """Return one job."""
    return job.as_json()


@router.delete("/jobs/{id}", status_code=204, responses=describe_errors(404))
def delete_job(job: JobDep, engine: EngineDep) -> Response:
    """Delete a job, its video and its results."""
    engine.delete(job.id)
    return Response(status_code=204)


@router.get("/jobs/{id}/result", response_model=Answer, responses=describe_errors(404, 409))
def show_result(job: JobDep, engine: EngineDep) -> Any:
    """Return the result of a finished job."""
    answer = engine.get_answer(job.id)
    if answer is None:
        raise RequestError(409, job.reason if job.state == "failed" else f"the job is not done yet: {job.state}")
    return answer


@router.get(
    "/jobs/{id}/video",
    response_class=FileResponse,
    responses={
        200: describe_binary(*VIDEO_MEDIA_TYPES, description="The video"),
        206: describe_binary(*VIDEO_MEDIA_TYPES, "multipart/byteranges", description="The requested range"),
        416: {"description": "The range is outside the file"},
        **describe_errors(404),
    },
)
def show_video(job: JobDep, engine: EngineDep) -> Response:
    """Return the video, as a copy that browsers can play if needed. Range requests are supported."""
    file = _require_file(engine.find_file(job.id, "video"))
    return _make_file_response(file, engine.get_media_type(job.id))


@router.get(
    "/jobs/{id}/annotated",
    response_class=FileResponse,
    responses={
        200: describe_binary("video/mp4", description="The annotated video"),
        202: {"model": JobFacts, "description": "The annotated video is being made"},
        206: describe_binary("video/mp4", "multipart/byteranges", description="The requested range"),
        416: {"description": "The range is outside the file"},
        **describe_errors(404),
    },
)
def show_annotated(job: JobDep, engine: EngineDep) -> Response:
    """Return the video with the predictions drawn in, if it was requested with `POST`."""
    file = engine.find_file(job.id, "annotated")
    if file is None and job.is_annotating:
        return _accepted_response(job)
    return _make_file_response(_require_file(file), "video/mp4", name="annotated.mp4")


@router.post("/jobs/{id}/annotated", status_code=202, response_model=JobFacts, responses=describe_errors(404, 409, 503))
def make_annotated(job: JobDep, engine: EngineDep) -> Response:
    """Request the annotated video."""
    if job.state != "done":
        raise RequestError(409, job.reason if job.state == "failed" else f"the job is not done yet: {job.state}")
    engine.request_annotation(job.id)
    return _accepted_response(engine.get_job(job.id) or job)


@router.get(
    "/jobs/{id}/result.csv",
    response_class=FileResponse,
    responses={200: describe_binary("text/csv", description="One row per segment"), **describe_errors(404)},
)
def show_csv(job: JobDep, engine: EngineDep) -> Response:
    """Return the segments as CSV."""
    return _make_file_response(_require_file(engine.find_file(job.id, "csv")), "text/csv", name="result.csv")


@router.get(
    "/jobs/{id}/picture",
    response_class=FileResponse,
    responses={200: describe_binary("image/jpeg", description="One frame"), **describe_errors(404)},
)
def show_picture(job: JobDep, engine: EngineDep) -> Response:
    """Return one frame of the video as JPEG."""
    return _make_file_response(_require_file(engine.find_file(job.id, "picture")), "image/jpeg")


@router.get("/models", response_model=ModelList, responses=describe_errors())
def list_models(engine: EngineDep) -> Any:
    """List the models that a request may choose."""
    return {"models": [facts.as_json() for facts in engine.models.values()], "default": engine.default_model}


@router.get(
    "/healthz", response_model=Health, responses={503: {"model": Health, "description": "No worker is running"}}
)
async def healthz(engine: EngineDep) -> Response:
    """Return whether the server works. This route needs no token."""
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
    """Return the metrics of the server for Prometheus."""
    return Response(render_metrics(request.app.state.counts, engine), media_type=METRICS_MEDIA_TYPE)


async def _wait_for_job(job: VideoJob, engine: Engine, request: Request, *, seconds: float) -> VideoJob:
    """Wait for a job to finish, for at most `seconds` or until the client disconnects, and return it.

    The wait takes no thread.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + seconds, POLL_SECONDS[0]
    while not job.is_over and loop.time() < deadline and not await request.is_disconnected():
        await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
        pause = min(POLL_SECONDS[1], pause * 1.2)
        job = engine.get_job(job.id) or job
    return job


def _accepted_response(job: VideoJob) -> Response:
    return JSONResponse(job.as_json(), 202, headers={"Location": f"/jobs/{job.id}"})


def _require_file(file: Path | None) -> Path:
    if file is None or not file.is_file():
        raise RequestError(404, "the file does not exist; it may not be made yet")
    return file


def _make_file_response(file: Path, media_type: str, *, name: str | None = None) -> Response:
    return FileResponse(file, media_type=media_type, filename=name)
