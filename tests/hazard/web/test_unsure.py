"""Videos with an uncertain result: unlike the training videos, or read only in part."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_model
from tests.helpers.chromium import CHROMIUM, MISSING
from tests.helpers.data.videos import truncate, write_textured

pytest.importorskip("open_clip")
pytest.importorskip("fastapi", reason="pip install '.[serve]'")

import open_clip

from hazard.web.engine.worker_job import AnalysisWorkerJob
from tests.helpers.data.tiny_clip import LABELS, write_tiny_clip
from tests.helpers.servers.served import RunningServer, run_server


class Clipped(AnalysisWorkerJob):
    """A worker with the tiny CLIP's configuration."""

    def start(self) -> Callable[[Any, Callable[[], None]], Any]:
        open_clip.add_model_config(self.infer.zero_shot.parent / "tiny-zero-shot.json")
        return super().start()


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels file of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    write_tiny_clip(folder)
    (folder / "labels.json").write_text(json.dumps(LABELS))
    return folder / "labels.json"


@pytest.fixture(scope="module")
def served(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("unsure")
    models = {"small": make_model(folder, clips_per_class=14)}  # fewer are too few to detect unknown videos
    infer = {"zero_shot": labels, "unknown_share": 0.9}
    with run_server(models, folder / "data", infer=infer, work=Clipped) as server:
        yield server


@pytest.fixture(scope="module")
def strange(served: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The job of a video unlike the drawn training videos."""
    file = write_textured(tmp_path_factory.mktemp("video") / "a.mp4", 30, seed=5)
    return served.wait_until_finished(served.client.post("/jobs", files={"video": file.read_bytes()}).json()["id"])


def test_what_the_model_does_not_know_is_named_by_clip(served: RunningServer, strange: dict[str, Any]) -> None:
    assert (strange["state"], strange["is_unknown"], strange["reason"]) == ("done", True, "")
    answer = served.client.get(strange["links"]["result"]).json()
    assert answer["is_unknown"]
    assert {name["label"] for name in answer["zero_shot"]} == set(LABELS["labels"])
    assert sum(name["confidence"] for name in answer["zero_shot"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_list_and_the_page_say_so(served: RunningServer, strange: dict[str, Any]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(served.url)
        row = page.locator(f"[data-id='{strange['id']}']")
        sync_api.expect(row.locator(".tag")).to_have_text("unknown")
        page.goto(f"{served.url}/jobs/{strange['id']}/page")
        said = page.locator(".verdict-card")
        sync_api.expect(said).to_contain_text("Not known to the model")
        sync_api.expect(said).to_contain_text("CLIP (zero-shot): ")
        browser.close()


def test_what_was_read_in_part_is_told_in_the_list_too(served: RunningServer, tmp_path: Path) -> None:
    file = truncate(write_textured(tmp_path / "a.mkv", 100, seed=5), 0.8)
    job = served.wait_until_finished(served.client.post("/jobs", files={"video": file.read_bytes()}).json()["id"])
    answer = served.client.get(job["links"]["result"]).json()
    assert (job["state"], answer["status"]) == ("done", "partial")
    assert job["reason"] == answer["reason"] != ""
