"""The JSON API: videos in, jobs and answers out."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from hazard.web.api.intake import Intake
from hazard.web.api.schemas import INPUT, Answer, Health, JobFacts, JobList, ModelList, binary, problems
from hazard.web.engine.engine import Engine
from hazard.web.errors import Refused
from hazard.web.http.guard import problem
from hazard.web.jobs.store import Job
from hazard.web.metrics import TEXT, metrics_text

POLL_SECONDS = (0.05, 0.5)
"""How often a waiting request looks for its answer: at first, and at last."""
KINDS = ("video/mp4", "video/webm", "application/octet-stream")
"""What a video may be to a browser; the last is none that it plays."""
TAKING = problems(408, 413, 415, 422, 429, 503, 507)

router = APIRouter()


def engine_of(request: Request) -> Engine:
    """The engine that does the work."""
    return request.app.state.engine


def job_of(id: str, request: Request) -> Job:
    """The job of a path. Raises Refused."""
    job = engine_of(request).job(id)
    if job is None:
        raise Refused(404, "no such job; it may have expired")
    return job


Working = Annotated[Engine, Depends(engine_of)]
Known = Annotated[Job, Depends(job_of)]


@router.post(
    "/predict",
    response_model=Answer,
    responses={202: {"model": JobFacts, "description": "Not done yet; Location is where it will be"}, **TAKING},
    openapi_extra=INPUT,
)
async def predict(request: Request, engine: Working) -> Response:
    """What the model sees in a video, in one call; a job where that takes longer than `wait_seconds`."""
    intake: Intake = request.app.state.intake
    job = await _finished(await intake.job(request), engine, request, seconds=request.app.state.settings.wait_seconds)
    if job.state == "failed":
        return problem(415 if job.stage == "open" else 422, job.reason)
    answer = await run_in_threadpool(engine.answer, job.id) if job.state == "done" else None
    return JSONResponse(answer) if answer else _accepted(job)


@router.post("/jobs", status_code=202, response_model=JobFacts, responses=TAKING, openapi_extra=INPUT)
async def submit(request: Request) -> Response:
    """Takes a video and answers at once."""
    intake: Intake = request.app.state.intake
    return _accepted(await intake.job(request))


@router.get("/jobs", response_model=JobList, responses=problems(422))
def list_jobs(engine: Working, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Any:
    """Jobs, newest first."""
    return {"jobs": [job.as_json() for job in engine.jobs()[:limit]]}


@router.get("/jobs/{id}", response_model=JobFacts, responses=problems(404))
def show_job(job: Known) -> Any:
    """One job."""
    return job.as_json()


@router.delete("/jobs/{id}", status_code=204, responses=problems(404))
def delete_job(job: Known, engine: Working) -> Response:
    """Removes a job, its video and its results."""
    engine.delete(job.id)
    return Response(status_code=204)


@router.get("/jobs/{id}/result", response_model=Answer, responses=problems(404, 409))
def show_result(job: Known, engine: Working) -> Any:
    """What the model sees."""
    answer = engine.answer(job.id)
    if answer is None:
        raise Refused(409, job.reason if job.state == "failed" else f"not done yet: {job.state}")
    return answer


@router.get(
    "/jobs/{id}/video",
    response_class=FileResponse,
    responses={
        200: binary(*KINDS, said="The video"),
        206: binary(*KINDS, "multipart/byteranges", said="A part of it"),
        416: {"description": "A range that is not there"},
        **problems(404),
    },
)
def show_video(job: Known, engine: Working) -> Response:
    """The video, as browsers play it; ranges may be asked for."""
    file = _there(engine.file(job.id, "video"))
    return _sent(file, engine.media_type(job.id))


@router.get(
    "/jobs/{id}/annotated",
    response_class=FileResponse,
    responses={
        200: binary("video/mp4", said="The annotated video"),
        202: {"model": JobFacts, "description": "It is being made"},
        206: binary("video/mp4", "multipart/byteranges", said="A part of it"),
        416: {"description": "A range that is not there"},
        **problems(404),
    },
)
def show_annotated(job: Known, engine: Working) -> Response:
    """The video with what was seen drawn in, once `POST` asked for it."""
    file = engine.file(job.id, "annotated")
    if file is None and job.is_annotating:
        return _accepted(job)
    return _sent(_there(file), "video/mp4", name="annotated.mp4")


@router.post("/jobs/{id}/annotated", status_code=202, response_model=JobFacts, responses=problems(404, 409, 503))
def make_annotated(job: Known, engine: Working) -> Response:
    """Asks for the annotated video."""
    if job.state != "done":
        raise Refused(409, job.reason if job.state == "failed" else f"not done yet: {job.state}")
    engine.annotate(job.id)
    return _accepted(engine.job(job.id) or job)


@router.get(
    "/jobs/{id}/result.csv",
    response_class=FileResponse,
    responses={200: binary("text/csv", said="A row a segment"), **problems(404)},
)
def show_csv(job: Known, engine: Working) -> Response:
    """The segments as CSV."""
    return _sent(_there(engine.file(job.id, "csv")), "text/csv", name="result.csv")


@router.get(
    "/jobs/{id}/picture",
    response_class=FileResponse,
    responses={200: binary("image/jpeg", said="One frame"), **problems(404)},
)
def show_picture(job: Known, engine: Working) -> Response:
    """One frame of the video."""
    return _sent(_there(engine.file(job.id, "picture")), "image/jpeg")


@router.get("/models", response_model=ModelList, responses=problems())
def list_models(engine: Working) -> Any:
    """The models that may be chosen."""
    return {"models": [facts.as_json() for facts in engine.models.values()], "default": engine.default}


@router.get("/healthz", response_model=Health, responses={503: {"model": Health, "description": "Not well"}})
async def healthz(engine: Working) -> Response:
    """Whether the server works; needs no token."""
    health = {
        "status": "ok" if engine.is_well else "no worker works",
        "workers": engine.workers,
        "queued": engine.queued,
    }
    return JSONResponse(health, 200 if engine.is_well else 503)


@router.get("/metrics", response_class=Response, responses={200: binary("text/plain", said="For Prometheus")})
def metrics(request: Request, engine: Working) -> Response:
    """The server in numbers."""
    return Response(metrics_text(request.app.state.counts, engine), media_type=TEXT)


async def _finished(job: Job, engine: Engine, request: Request, *, seconds: float) -> Job:
    """The job once it is over, or as it is after so long, or when the client has gone. No thread waits for it."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, POLL_SECONDS[0]
    while not job.is_over and loop.time() < until and not await request.is_disconnected():
        await asyncio.sleep(min(pause, max(0.0, until - loop.time())))
        pause = min(POLL_SECONDS[1], pause * 1.2)
        job = engine.job(job.id) or job
    return job


def _accepted(job: Job) -> Response:
    return JSONResponse(job.as_json(), 202, headers={"Location": f"/jobs/{job.id}"})


def _there(file: Path | None) -> Path:
    if file is None or not file.is_file():
        raise Refused(404, "not made yet, or it cannot be")
    return file


def _sent(file: Path, kind: str, *, name: str | None = None) -> Response:
    return FileResponse(file, media_type=kind, filename=name)
