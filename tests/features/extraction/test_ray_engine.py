"""The Ray engine gives the same cache as the local engine, even if workers and nodes are lost."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from features.cache.hdf5 import verify_cache
from features.cache.parts import parts_folder
from features.config import ExtractSettings
from features.errors import RuntimeEnvironmentError
from features.extraction.extract import extract_to_cache
from features.extraction.local_engine import extract_clips
from features.extraction.ray_actor_pool import ActorPool
from features.extraction.ray_actors import ClipActor, PackedJob
from features.extraction.ray_engine import ActorLayout, extract_on_cluster
from features.extraction.ray_scheduler import MAX_ATTEMPTS, Scheduler, _ClipAttempt, _get_attempts, _RemoteFrames
from features.extraction.spec_builder import build_spec
from features.sources.discover import find_clips
from features.types import Clip, ExtractedClip, Failure
from features.utils.worker_pool import LostTask
from tests.conftest import Run
from tests.helpers.data.videos import write_numbered
from tests.helpers.paths import ROOT
from tests.helpers.pool_jobs import DEADLINE, ScriptedJob

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

SETTINGS = ExtractSettings(weights="random", runtime="torch", device="cpu", frames=3, part_clips=1, engine="ray")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        write_numbered(folder / f"{i}.mp4", 12 + i)
    return folder


def plain(videos: Path, output: Path) -> str:
    summary = extract_to_cache(find_clips([videos]), output, SETTINGS.model_copy(update={"engine": "local"}))
    assert summary.header is not None
    return summary.header.content_digest


@pytest.mark.long
def test_one_machine(videos: Path, tmp_path: Path, extract: Run) -> None:
    videos = Path(shutil.copytree(videos, tmp_path / "videos"))
    (videos / "text.mp4").write_text("not a video")
    ran = extract(videos, "-o", tmp_path / "r.h5", "--frames", "3", "--device", "cpu", "--engine", "ray")
    assert ran.code == 3
    assert "4 extracted, 0 kept, 1 failed" in ran.out
    assert "1 x open: not a video" in ran.out
    assert [line for line in ran.err.splitlines() if not line.startswith("extract: ") and line] == []
    assert verify_cache(tmp_path / "r.h5").content_digest == plain(videos, tmp_path / "p.h5")
    again = extract(videos, "-o", tmp_path / "r.h5", "--frames", "3", "--device", "cpu", "--engine", "ray")
    assert "0 extracted, 4 kept, 0 failed" in again.out


def test_a_worker_outlives_clips_that_hang_or_crash() -> None:
    worker = ClipActor(PackedJob(pickle.dumps(ScriptedJob())), deadline_seconds=DEADLINE)
    results = [pickle.loads(worker.work(pickle.dumps(task))[1]) for task in ("a", "crash", "b", "hang", "c")]
    assert results[0::2] == ["A", "B", "C"]
    assert results[1] == LostTask("decode", "the decoder crashed (SIGSEGV)")
    assert results[3] == LostTask("decode", f"timeout: nothing decoded for {DEADLINE:g} s")


def test_a_node_that_does_not_see_the_videos_stops_the_job() -> None:
    worker = ClipActor(PackedJob(pickle.dumps(ScriptedJob())), deadline_seconds=DEADLINE)
    with pytest.raises(RuntimeEnvironmentError, match=r"does not see /absent/a\.mp4"):
        worker.set_up([__file__, "/absent/a.mp4"])


def test_the_clips_of_a_lost_task_are_known() -> None:
    attempts = [_ClipAttempt(Clip(name, Path(name))) for name in "ab"]
    batch = [_RemoteFrames(attempt, 3, None) for attempt in attempts]
    assert [_get_attempts(attempts[0]), _get_attempts(batch[0]), _get_attempts(batch)] == [
        attempts[:1],
        attempts[:1],
        attempts,
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--address", "auto"], "add --engine ray"),
        (["--engine", "ray", "--device", "cuda:1"], "choose auto, cpu or cuda"),
        (["--engine", "ray", "--address", "nowhere"], "host:port"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "the Ray cluster at 127.0.0.1:1 cannot be joined"),
    ],
)
def test_wrong_options(videos: Path, tmp_path: Path, extract: Run, arguments: list[str], said: str) -> None:
    ran = extract(videos, "-o", tmp_path / "c.h5", *arguments)
    assert ran.code == (5 if "joined" in said else 2)
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert said in ran.err


def test_without_ray(videos: Path, tmp_path: Path, extract: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.extraction.ray_engine.find_spec", lambda name: None)
    ran = extract(videos, "-o", tmp_path / "c.h5", "--engine", "ray")
    assert (ran.code, ran.err) == (
        2,
        "error: ray is not installed; pip install ray, or use --engine local\n",
    )


@pytest.fixture
def cluster() -> Iterator["ray.cluster_utils.Cluster"]:
    """A cluster with a head without cores and two nodes with one core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.long
def test_a_node_is_killed(cluster: "ray.cluster_utils.Cluster", tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(12):
        write_numbered(videos / f"{i}.mp4", 12 + i)
    output, nodes = tmp_path / "r.h5", list(cluster.worker_nodes)

    def kill_at_the_first_part() -> bool:
        if len(nodes) == 2 and list(parts_folder(output).glob("part-*.h5")):
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        return False

    summary = extract_to_cache(
        find_clips([videos]),
        output,
        SETTINGS.model_copy(update={"address": cluster.address}),
        is_stopped=kill_at_the_first_part,
    )
    assert len(nodes) == 1
    assert (summary.extracted, summary.failed) == (12, 0)
    assert verify_cache(output).content_digest == plain(videos, tmp_path / "p.h5")


@pytest.mark.long
def test_workers_decode_and_encoders_encode(cluster: "ray.cluster_utils.Cluster", videos: Path, tmp_path: Path) -> None:
    """The layout for GPUs, with its device set to the CPU."""
    settings = SETTINGS.model_copy(update={"address": cluster.address, "batch_size": 5})
    spec, weights = build_spec(settings)
    clips = [*find_clips([videos]), Clip("absent.mp4", tmp_path / "absent.mp4")]
    outcomes = list(extract_on_cluster(clips, spec, weights, settings, layout=ActorLayout(encoders=1)))
    alone = extract_clips(clips, spec, weights, settings.model_copy(update={"engine": "local", "batch_size": 1}))
    expected = {o.tracks[0].clip.path: o.tracks[0].features for o in alone if isinstance(o, ExtractedClip)}
    got = {o.tracks[0].clip.path: o.tracks[0].features for o in outcomes if isinstance(o, ExtractedClip)}
    assert got.keys() == expected.keys()
    assert len(got) == 4
    assert all(np.abs(got[path].astype(np.float32) - expected[path]).max() < 2e-3 for path in got)
    assert "absent.mp4" in {outcome.clip.path for outcome in outcomes if isinstance(outcome, Failure)}


class Mortal:
    """A worker that some clips kill."""

    def set_up(self, samples: list[str]) -> int:
        return 0

    def work(self, task: bytes) -> tuple[int, bytes]:
        clip = pickle.loads(task)
        if clip.path.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0, pickle.dumps(Failure(clip, "decode", "done"))


class Blind:
    """A worker on a node that lacks something."""

    def set_up(self, samples: list[str]) -> int:
        raise RuntimeEnvironmentError("node far does not see it")


@pytest.mark.long
def test_a_clip_that_kills_its_workers_is_a_failure_and_costs_no_other() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    try:
        make: Callable[[], object] = partial(ray.remote(Mortal).remote)
        clips = [Clip(f"{'poison' if i == 4 else 'good'}{i}", Path(f"{i}.mp4")) for i in range(12)]
        schedule = Scheduler(clips, ActorPool(make, lambda: 2, sample_files=[], tasks_per_actor=2), None)
        outcomes = [outcome for outcome in schedule.run(lambda: False) if isinstance(outcome, Failure)]
        blind = ActorPool(ray.remote(Blind).remote, lambda: 1, sample_files=[], tasks_per_actor=2)
        with pytest.raises(RuntimeEnvironmentError, match="node far does not see it"):
            list(Scheduler(clips, blind, None).run(lambda: False))
    finally:
        ray.shutdown()
    reasons = {outcome.clip.path: outcome.reason for outcome in outcomes}
    assert f"its worker was lost {MAX_ATTEMPTS} times" in reasons.pop("poison4")
    assert reasons == {clip.path: "done" for clip in clips if clip.path != "poison4"}
    assert len(outcomes) == len(clips)


@pytest.mark.long
def test_sigterm_commits_and_another_engine_goes_on(videos: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "r.h5"
    arguments = [videos, "-o", output, "--frames", "3", "--device", "cpu", "--runtime", "torch", "--weights", "random"]
    command = [sys.executable, ROOT / "extract_features.py", *arguments, "--set", "part_clips=1"]
    process = subprocess.Popen(
        [str(part) for part in (*command, "--engine", "ray", "--workers", "1")], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(parts_folder(output).glob("part-*.h5")):
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "stopping: saving the finished clips" in said
    assert not output.exists()
    ran = extract(*arguments)
    assert ran.code == 0
    assert verify_cache(output).content_digest == plain(videos, tmp_path / "p.h5")
