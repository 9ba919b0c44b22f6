"""A request that brings a video, or says where one is → a job."""

import json
import logging

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from features.errors import RuntimeEnvironmentError
from features.sources.download.policy import ForbiddenUrlError, parse_url
from hazard.web.engine.engine import NO_MODEL_MESSAGE, Engine
from hazard.web.errors import RequestError
from hazard.web.http.limits import ConcurrencyLimit
from hazard.web.http.uploads import UploadLimits, read_small_body, receive_upload
from hazard.web.jobs.store import VideoJob
from hazard.web.metrics import ServerCounts
from hazard.web.settings import ServeSettings

log = logging.getLogger(__name__)


class Intake:
    """Takes videos for the engine, so many at the same time."""

    def __init__(self, engine: Engine, settings: ServeSettings, counts: ServerCounts) -> None:
        self.engine, self.counts = engine, counts
        self.limits = UploadLimits(settings.max_bytes, settings.upload_seconds)
        self.upload_slots = ConcurrencyLimit(settings.uploads, "uploads:")

    async def create_job(self, request: Request) -> VideoJob:
        """The new job of a request. Raises Refused."""
        if not self.engine.models:
            raise RequestError(422, NO_MODEL_MESSAGE)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == "multipart/form-data":
                return await self._take_upload(request)
            if kind == "application/json":
                return await self._take_url(request)
        except RuntimeEnvironmentError as error:
            log.error("a job could not be kept: %s", error)
            raise RequestError(507, "the server cannot keep this upload; its log says why") from None
        raise RequestError(
            415, "send multipart/form-data with a file in the field 'video', or JSON such as {\"url\": …}"
        )

    async def _take_upload(self, request: Request) -> VideoJob:
        with self.upload_slots.acquire():
            await run_in_threadpool(self.engine.make_room, _announced_bytes(request))
            async with receive_upload(request, self.engine.incoming_folder, self.limits) as upload:
                self.counts.count_upload(upload.file.stat().st_size)
                if unknown := upload.fields.keys() - {"model"}:
                    raise RequestError(422, f"unknown field '{min(unknown)[:40]}'; there are video and model")
                model = self._resolve_model(upload.fields.get("model", ""))
                return await run_in_threadpool(self.engine.submit, upload.file, name=upload.name, model=model)

    async def _take_url(self, request: Request) -> VideoJob:
        wanted = _parse_url_request(await read_small_body(request))
        model = self._resolve_model(wanted.get("model", ""))
        try:
            parse_url(wanted["url"])
        except ForbiddenUrlError as refused:
            raise RequestError(422, f"the address is refused: {refused}") from None
        return await run_in_threadpool(self.engine.submit_url, wanted["url"], model=model)

    def _resolve_model(self, name: str) -> str:
        if name and name not in self.engine.models:
            raise RequestError(422, f"no model '{name[:80]}'; there are: {', '.join(self.engine.models)}")
        return name or self.engine.default_model


def _parse_url_request(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        raise RequestError(422, 'expected an object such as {"url": "https://…", "model": "…"}')
    if unknown := found.keys() - {"url", "model"}:
        raise RequestError(422, f"unknown fields {', '.join(sorted(unknown))[:80]}; there are url and model")
    if not isinstance(found.get("model", ""), str):
        raise RequestError(422, "the field model is text")
    return found


def _announced_bytes(request: Request) -> int:
    """Bytes that the client says it will send; 0 where it does not say."""
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isdecimal() else 0
