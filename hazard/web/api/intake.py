"""The intake of videos: a request with a video, or with the URL of one, becomes a job."""

import json
import logging

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from features.errors import RuntimeEnvironmentError
from features.sources.download.policy import ForbiddenUrlError, parse_url
from hazard.web.engine.engine import NO_MODEL_MESSAGE, Engine
from hazard.web.errors import RequestError
from hazard.web.http.limits import ConcurrencyLimit
from hazard.web.http.uploads import UPLOAD_NOT_STORED_MESSAGE, UploadLimits, read_small_body, receive_upload
from hazard.web.jobs.store import VideoJob
from hazard.web.metrics import ServerCounts
from hazard.web.settings import ServeSettings

log = logging.getLogger(__name__)


class Intake:
    """The intake of the engine. It limits the number of simultaneous uploads."""

    def __init__(self, engine: Engine, settings: ServeSettings, counts: ServerCounts) -> None:
        self.engine, self.counts = engine, counts
        self.limits = UploadLimits(settings.max_bytes, settings.upload_seconds)
        self.upload_slots = ConcurrencyLimit(settings.uploads, "uploads")

    async def create_job(self, request: Request) -> VideoJob:
        """Create the job of a request and return it. Raises RequestError."""
        if not self.engine.models:
            raise RequestError(422, NO_MODEL_MESSAGE)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == "multipart/form-data":
                return await self._take_upload(request)
            if kind == "application/json":
                return await self._take_url(request)
        except RuntimeEnvironmentError as error:
            log.error("a job could not be stored: %s", error)
            raise RequestError(507, UPLOAD_NOT_STORED_MESSAGE) from None
        raise RequestError(
            415, "expected multipart/form-data with a file in the field 'video', or JSON such as {\"url\": …}"
        )

    async def _take_upload(self, request: Request) -> VideoJob:
        with self.upload_slots.acquire():
            await run_in_threadpool(self.engine.make_room, _announced_bytes(request))
            async with receive_upload(request, self.engine.incoming_folder, self.limits) as upload:
                self.counts.count_upload(upload.file.stat().st_size)
                if unknown := upload.fields.keys() - {"model"}:
                    raise RequestError(422, f"unknown field '{min(unknown)[:40]}'; expected video and model")
                model = self._resolve_model(upload.fields.get("model", ""))
                return await run_in_threadpool(self.engine.submit, upload.file, name=upload.name, model=model)

    async def _take_url(self, request: Request) -> VideoJob:
        fields = _parse_url_request(await read_small_body(request))
        model = self._resolve_model(fields.get("model", ""))
        try:
            parse_url(fields["url"])
        except ForbiddenUrlError as error:
            raise RequestError(422, f"URL rejected: {error}") from None
        return await run_in_threadpool(self.engine.submit_url, fields["url"], model=model)

    def _resolve_model(self, name: str) -> str:
        if name and name not in self.engine.models:
            raise RequestError(422, f"no model '{name[:80]}'; choose one of: {', '.join(self.engine.models)}")
        return name or self.engine.default_model


def _parse_url_request(body: bytes) -> dict[str, str]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the request is not valid JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
        raise RequestError(422, 'expected an object such as {"url": "https://…", "model": "…"}')
    if unknown := fields.keys() - {"url", "model"}:
        raise RequestError(422, f"unknown fields {', '.join(sorted(unknown))[:80]}; expected url and model")
    if not isinstance(fields.get("model", ""), str):
        raise RequestError(422, "the field model must be text")
    return fields


def _announced_bytes(request: Request) -> int:
    """Return the length that the request's header announces, in bytes; 0 without one."""
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isdecimal() else 0
