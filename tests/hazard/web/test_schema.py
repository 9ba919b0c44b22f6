"""schemathesis against the OpenAPI of a running server: no server errors and no undescribed answers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install '.[serve]'")
pytest.importorskip("schemathesis", reason="pip install schemathesis")

from tests.helpers.data.monitor_folders import MonitorFolder
from tests.helpers.servers.served import RunningServer, run_server

LEFT_OUT = "positive_data_acceptance"
"""The check that is left out: no schema says which bytes are a video, so most generated requests are rejected."""


@pytest.fixture(scope="module")
def served(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data, scene = tmp_path_factory.mktemp("data"), MonitorFolder(tmp_path_factory.mktemp("site"))
    scene.add_event()
    scene.write()
    monitors = {"site": scene.folder}
    with run_server({"first": small_model}, data, wait_seconds=2, queue=1000, monitors=monitors) as server:
        yield server


@pytest.mark.parametrize(
    ("phases", "examples"), [("fuzzing", 10), pytest.param("examples,coverage,fuzzing", 60, marks=pytest.mark.long)]
)
def test_answers_are_as_described(
    served: RunningServer, video: bytes, tmp_path: Path, phases: str, examples: int
) -> None:
    job = served.wait_until_finished(served.client.post("/jobs", files={"video": video}).json()["id"])
    assert job["state"] == "done"
    [event] = served.client.get("/api/events").json()["events"]
    # An existing job and event, so that their routes answer more than 404. DELETE gets another id.
    (tmp_path / "schemathesis.toml").write_text(
        f'[parameters]\n"path.id" = "{job["id"]}"\n"path.key" = "{event["key"]}"\n'
        '[[operations]]\ninclude-name = "DELETE /jobs/{id}"\nparameters = { "path.id" = "none" }\n'
    )
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.url}/openapi.json", "--no-color"]
    options = ["--checks", "all", "--exclude-checks", LEFT_OUT, "--max-examples", str(examples)]
    options += ["--phases", phases, "--generation-deterministic", "--continue-on-failure"]
    ran = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=540, check=False)
    print(ran.stdout[-1500:])
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    [(generated, passed)] = re.findall(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert int(generated) == int(passed) >= 50
    [tested] = re.findall(r"Tested: +(\d+)", ran.stdout)
    assert int(tested) == sum(len(one) for one in served.client.get("/openapi.json").json()["paths"].values())
    assert served.client.get("/healthz").status_code == 200
