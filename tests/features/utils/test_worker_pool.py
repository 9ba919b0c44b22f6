"""Workers that hang, crash or cannot start: only their own task is lost."""

import pytest

from features.errors import RuntimeEnvironmentError
from features.utils.worker_pool import LostTask, run_tasks
from tests.helpers.pool_jobs import DEADLINE, ScriptedJob


def run(tasks: list[str], **options: object) -> dict[str, object]:
    return dict(run_tasks(ScriptedJob(), tasks, **({"workers": 2, "deadline_seconds": DEADLINE} | options)))


def test_each_task_is_done_once() -> None:
    tasks = [f"task {i}" for i in range(20)]
    assert run(tasks) == {task: task.upper() for task in tasks}


def test_hang_and_crash_lose_only_their_own_task() -> None:
    results = run(["a", "hang", "b", "crash", "c", "slow but alive", "d"])
    assert results["hang"] == LostTask("decode", f"timeout: nothing decoded for {DEADLINE:g} s")
    assert results["crash"] == LostTask("decode", "the decoder crashed (SIGSEGV)")
    assert [results[task] for task in ("a", "b", "c", "d")] == ["A", "B", "C", "D"]
    assert results["slow but alive"] == "SLOW BUT ALIVE"


def test_a_worker_that_cannot_start_stops_the_job() -> None:
    with pytest.raises(RuntimeEnvironmentError, match="no model here"):
        list(run_tasks(ScriptedJob(broken=True), ["a"], workers=1, deadline_seconds=5))


def test_stops_when_asked() -> None:
    seen: list[str] = []
    for task, _ in run_tasks(
        ScriptedJob(), (str(i) for i in range(10**9)), workers=1, deadline_seconds=5, is_stopped=lambda: len(seen) >= 3
    ):
        seen.append(task)
    assert 3 <= len(seen) <= 5
