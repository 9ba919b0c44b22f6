"""Locks, and what a killed process leaves behind."""

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import RuntimeEnvironmentError
from features.utils import files
from features.utils.files import hold_lock, remove_stale_temporaries
from tests.helpers.paths import ROOT

HOLD = """
import sys
from pathlib import Path
from features.utils.files import hold_lock, open_atomically
with hold_lock(Path(sys.argv[1])), open_atomically(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_and_a_temporary_file_end_with_their_process(tmp_path: Path) -> None:
    lock, output = tmp_path / "lock", tmp_path / "output"
    command = [sys.executable, "-c", HOLD, str(lock), str(output)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline().strip() == b"held"
        with (
            pytest.raises(RuntimeEnvironmentError, match="another one runs"),
            hold_lock(lock, busy_message="another one runs"),
        ):
            pass
        assert remove_stale_temporaries(tmp_path) == 0
        holder.kill()
    with hold_lock(lock), pytest.raises(RuntimeEnvironmentError), hold_lock(lock, busy_message="busy"):
        pass
    assert remove_stale_temporaries(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some NFS and Lustre mounts: one line says so, and the work goes on."""

    def fail(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "lock_descriptor", fail)
    with caplog.at_level(logging.WARNING), hold_lock(tmp_path / "lock", busy_message="busy"):
        pass
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'lock'}: the file system has no file locks (No locks available); "
        "do not run two commands with this output at the same time"
    ]
