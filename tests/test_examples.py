"""The scripts in examples/, with a substitute for SLURM's sbatch."""

import ast
import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from features.cache.hdf5 import read_header
from features.cli.manage import features
from hazard.cli.main import hazard
from hazard.cli.monitor import monitor
from hazard.monitor.metrics.counters import CountersSnapshot, MonitorCounters
from hazard.monitor.metrics.prometheus import MetricsCollector
from hazard.monitor.metrics.server import serve_metrics
from hazard.utils.bind_address import BindAddress
from tests.conftest import Run
from tests.helpers.paths import ROOT

SCRIPT = ROOT / "examples" / "slurm_extract.sh"
MONITOR = ROOT / "examples" / "monitor"
SBATCH = """#!/usr/bin/env bash
# Runs the job at once: each share of an array, or one job.
echo "$1 $2" >> "$SUBMITTED"
tasks=(none)
[[ $2 =~ ^--array=1-([0-9]+)$ ]] && tasks=($(seq "${BASH_REMATCH[1]}"))
shift 2
for task in "${tasks[@]}"; do
    export SLURM_JOB_ID=17 SLURM_CPUS_PER_TASK=1 SLURM_ARRAY_TASK_ID=$task
    [[ $task == none ]] && unset SLURM_ARRAY_TASK_ID
    bash "$@" >&2
done
echo "17;here"
"""


def submit(tmp_path: Path, *arguments: object, program: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "EXTRACT": program,
        "SUBMITTED": str(tmp_path / "submitted"),
    }
    command = ["bash", SCRIPT, *arguments]
    return subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=300)


def test_slurm_submits_each_share_and_a_last_job(tmp_path: Path) -> None:
    ran = submit(tmp_path, 3, "a folder", "-o", "c.h5", program="echo extracts")
    assert ran.returncode == 0
    assert ran.stdout == "submitted: array 17 of 3 shards, then job 17, which builds the cache\n"
    assert (tmp_path / "submitted").read_text().splitlines() == [
        "--parsable --array=1-3",
        "--parsable --dependency=afterany:17",
    ]
    shares = [f"extracts a folder -o c.h5 --shard {i}/3 --workers 1" for i in (1, 2, 3)]
    assert ran.stderr.splitlines() == [*shares, "extracts a folder -o c.h5 --workers 1"]


def test_keras_trains_on_a_cache_that_h5py_reads(tmp_path: Path, run: Run) -> None:
    if find_spec("keras") is None:
        pytest.skip("keras is not installed: pip install '.[test]'")
    rng, lines = np.random.default_rng(0), ["path,label,group"]
    for label, middle in (("calm", -1), ("fight", 1)):  # far apart
        for i in range(8):
            np.save(tmp_path / f"{label}{i}.npy", (middle + 0.1 * rng.normal(size=(2 + i % 3, 6))).astype(np.float16))
            lines.append(f"{label}{i}.npy,{label},group {i % 4}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    assert run(features, "import", tmp_path / "manifest.csv", "-o", tmp_path / "c.h5").code == 0
    command = [sys.executable, ROOT / "examples" / "keras_lstm.py", tmp_path / "c.h5", "--epochs", "8"]
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path), "PYTHONPATH": ""}
    ran = subprocess.run([str(part) for part in command], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "16 clips of up to 4 steps" in ran.stdout
    assert "are for testing" in ran.stdout
    found = re.search(r"^accuracy (\d\.\d+) on", ran.stdout, re.MULTILINE)
    assert found is not None and float(found[1]) > 0.7


@pytest.mark.parametrize("arguments", [[], ["clips"], ["0", "clips"], ["4"]])
def test_slurm_says_how_it_is_used(tmp_path: Path, arguments: list[str]) -> None:
    ran = submit(tmp_path, *arguments, program="echo extracts")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: ")


@pytest.mark.long
def test_slurm_fills_one_cache(numbered: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.h5"
    options = ["--weights", "random", "--runtime", "torch", "--device", "cpu", "--frames", "2"]
    ran = submit(tmp_path, 2, numbered, "-o", output, *options, program=f"{sys.executable} {ROOT}/extract_features.py")
    assert ran.returncode == 0, ran.stderr
    assert len(read_header(output).clips) == 6


def instructions() -> dict[str, list[str]]:
    """Return the lines of the Dockerfile by instruction, with continued lines joined."""
    text = (MONITOR / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {key: [rest for word, rest in lines if word == key] for key in {word for word, _ in lines}}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the environment variables of monitor.env.example."""
    lines = (MONITOR / "monitor.env.example").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_the_monitor_of_the_examples_loads(tmp_path: Path, secrets: dict[str, str]) -> None:
    file = MONITOR / "monitor.yaml"
    assert set(yaml.safe_load(file.read_text())) == {"monitor", "cameras", "alerts", "infer"}
    content = "\n".join(line.partition("#")[0] for line in file.read_text().splitlines())
    assert set(re.findall(r"\$\{(\w+)\}|env:(\w+)", content)) == {
        (name, "") if "LOGIN" in name else ("", name) for name in secrets
    }
    command = [sys.executable, "-m", "hazard", "monitor", "--config", file, "--model", tmp_path, "-o", tmp_path / "o"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert (ran.returncode, "no model at" in ran.stderr) == (2, True), "all of it was read before"


def test_each_alert_that_the_monitor_of_the_examples_may_send_is_read_alone(
    tmp_path: Path, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels that are commented out in the file are correct too."""
    for name in ("SHIFT_LEADER_URL", "BROKER_PASSWORD"):
        monkeypatch.setenv(name, "x")
    text = re.sub(r"^    # (- |  )", r"    \1", (MONITOR / "monitor.yaml").read_text(), flags=re.MULTILINE)
    from hazard.alerts.settings import load_alert_settings

    (tmp_path / "m.yaml").write_text(text)
    assert [one.kind for one in load_alert_settings(tmp_path / "m.yaml").channels] == ["webhook", "apprise", "mqtt"]


def test_the_command_lines_of_service_and_image_can_be_given() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(MONITOR / "hazard-monitor.service")
    program, *of_service = shlex.split(unit["Service"]["ExecStart"])
    image = instructions()
    entry, of_image = ast.literal_eval(image["ENTRYPOINT"][0]), ast.literal_eval(image["CMD"][0])
    assert (Path(program).name, of_service.pop(0)) == tuple(entry) == ("hazard", "monitor")
    for arguments in (of_service, of_image):
        given = monitor.make_context("monitor", list(arguments)).params
        assert given["config"] and given["model_folder"] and given["output"]
    assert hazard.commands["monitor"] is monitor
    assert unit["Service"]["RestartPreventExitStatus"] == "2 4"


def test_the_image_is_made_of_what_is_there() -> None:
    image, allowed = instructions(), (MONITOR / "Dockerfile.dockerignore").read_text().splitlines()
    for line in image["COPY"]:
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists() and f"!{source}" in allowed
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = re.findall(r"'\.\[([\w,]+)\]'", " ".join(image["RUN"]))
    assert set(extras[0].split(",")) <= setup["options.extras_require"].keys()
    found = re.findall(r"^torch(?:vision)?==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert sorted(found) == ["torch==", "torchvision=="], "a pair, from one index"


def test_the_container_is_given_what_its_command_names() -> None:
    service = yaml.safe_load((MONITOR / "compose.yaml").read_text())["services"]["monitor"]
    targets = {line.split(":")[1] for line in service["volumes"]}
    for argument in [*ast.literal_eval(instructions()["CMD"][0]), "/weights"]:
        if argument.startswith("/"):
            assert any(Path(argument).is_relative_to(target) for target in targets), argument
    assert (MONITOR / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["ports"][0].startswith("127.0.0.1:")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_the_service(tmp_path: Path) -> None:
    file = tmp_path / "hazard-monitor.service"
    file.write_text((MONITOR / file.name).read_text().replace("/opt/hazard/venv/bin/hazard", sys.executable))
    ran = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (ran.returncode, [line for line in ran.stderr.splitlines() if file.name in line]) == (0, [])


def test_rules_ask_for_metrics_that_there_are() -> None:
    pytest.importorskip("prometheus_client", reason="pip install '.[metrics]'")
    families = list(MetricsCollector(MonitorCounters(), lambda: {"pending": 0, "dead": 0}).collect())
    known = {family.name + suffix for family in families for suffix in ("", "_total", "_bucket", "_sum", "_count")}
    known |= {"hazard_last_look_timestamp_seconds"}  # once cameras are open
    groups = yaml.safe_load((MONITOR / "prometheus-rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    asked = {name for rule in rules for name in re.findall(r"\bhazard_\w+", rule["expr"])}
    assert len(asked) >= 8 and asked <= known
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert labels <= {"camera", "instance"}


@pytest.mark.parametrize(("age", "code", "said"), [(1, 0, ""), (200, 1, " s ago"), (None, 1, "not open yet")])
def test_a_container_is_healthy_while_cameras_are_looked_at(age: float | None, code: int, said: str) -> None:
    pytest.importorskip("prometheus_client", reason="pip install '.[metrics]'")
    tally = MonitorCounters()
    tally.snapshot = CountersSnapshot(last_poll=0.0 if age is None else time.time() - age)
    with serve_metrics(MetricsCollector(tally), BindAddress("127.0.0.1", 0)) as url:
        ran = subprocess.run([sys.executable, MONITOR / "healthcheck.py", url], capture_output=True, text=True)
    assert (ran.returncode, said in ran.stderr) == (code, True)
    ran = subprocess.run([sys.executable, MONITOR / "healthcheck.py", url], capture_output=True, text=True)
    assert (ran.returncode, "refused" in ran.stderr) == (1, True), "nobody is there any more"
