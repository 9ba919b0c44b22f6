"""A request that brings a video, or says where one is → a job."""

import json
import logging

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from features.errors import EnvironmentStopped
from features.sources.download.policy import AddressRefused, parse_address
from hazard.web.engine.engine import NO_MODEL, Engine
from hazard.web.errors import Refused
from hazard.web.http.limits import Slots
from hazard.web.http.uploads import UploadLimits, received, small_body
from hazard.web.jobs.store import Job
from hazard.web.metrics import Counts
from hazard.web.settings import ServeSettings

log = logging.getLogger(__name__)


class Intake:
    """Takes videos for the engine, so many at the same time."""

    def __init__(self, engine: Engine, settings: ServeSettings, counts: Counts) -> None:
        self.engine, self.counts = engine, counts
        self.limits = UploadLimits(settings.max_bytes, settings.upload_seconds)
        self.slots = Slots(settings.uploads, "uploads:")

    async def job(self, request: Request) -> Job:
        """The new job of a request. Raises Refused."""
        if not self.engine.models:
            raise Refused(422, NO_MODEL)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == "multipart/form-data":
                return await self._uploaded(request)
            if kind == "application/json":
                return await self._fetched(request)
        except EnvironmentStopped as error:
            log.error("a job could not be kept: %s", error)
            raise Refused(507, "the server cannot keep this upload; its log says why") from None
        raise Refused(415, "send multipart/form-data with a file in the field 'video', or JSON such as {\"url\": …}")

    async def _uploaded(self, request: Request) -> Job:
        with self.slots.one():
            await run_in_threadpool(self.engine.admit, _promised(request))
            async with received(request, self.engine.incoming, self.limits) as upload:
                self.counts.upload(upload.file.stat().st_size)
                if unknown := upload.fields.keys() - {"model"}:
                    raise Refused(422, f"unknown field '{min(unknown)[:40]}'; there are video and model")
                model = self._model(upload.fields.get("model", ""))
                return await run_in_threadpool(self.engine.submit, upload.file, name=upload.name, model=model)

    async def _fetched(self, request: Request) -> Job:
        wanted = _wanted(await small_body(request))
        model = self._model(wanted.get("model", ""))
        try:
            parse_address(wanted["url"])
        except AddressRefused as refused:
            raise Refused(422, f"the address is refused: {refused}") from None
        return await run_in_threadpool(self.engine.submit_address, wanted["url"], model=model)

    def _model(self, name: str) -> str:
        if name and name not in self.engine.models:
            raise Refused(422, f"no model '{name[:80]}'; there are: {', '.join(self.engine.models)}")
        return name or self.engine.default


def _wanted(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        raise Refused(422, 'expected an object such as {"url": "https://…", "model": "…"}')
    if unknown := found.keys() - {"url", "model"}:
        raise Refused(422, f"unknown fields {', '.join(sorted(unknown))[:80]}; there are url and model")
    if not isinstance(found.get("model", ""), str):
        raise Refused(422, "the field model is text")
    return found


def _promised(request: Request) -> int:
    """Bytes that the client says it will send; 0 where it does not say."""
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isdecimal() else 0
