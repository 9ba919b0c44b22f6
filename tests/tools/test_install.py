"""What `make` does to install, with real virtual environments and pip, and small wheels in the place of OpenCV's."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make and its .venv/bin are for POSIX systems")
DESKTOP = 'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")\n'
HEADLESS = "headless = True\n__version__ = '4.2'\n"


def write_wheel(folder: Path, name: str, content: str) -> None:
    """Write a wheel of version 4.2 whose package is `cv2`, as those of OpenCV are."""
    info = f"{name}-4.2.dist-info"
    files = {
        "cv2/__init__.py": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 4.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-4.2-py3-none-any.whl", "w") as wheel:
        record = ""
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def install(folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Install opencv-python from the wheels in `folder` as `make` does."""
    environment = {
        "PATH": os.environ["PATH"],
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_TARGET": str(folder / "elsewhere"),
    }
    return subprocess.run(
        [python, ROOT / "tools" / "install.py", folder / ".venv", "opencv-python"],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_an_installation_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    """Each call of `make` goes on from what the last one left, and OpenCV is replaced once."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / "gone")
    (tmp_path / "wheels").mkdir()
    refused = install(tmp_path)
    assert refused.returncode == 1 and "holds other files and is no virtual environment" in refused.stderr
    assert python.is_symlink(), "nothing is removed from a folder that may be something else"
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    failed = install(tmp_path)
    assert failed.returncode == 1
    assert "making the virtual environment" in failed.stdout
    assert "No matching distribution found for opencv-python" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: pip failed, see its last lines above")
    write_wheel(tmp_path / "wheels", "opencv_python", DESKTOP)
    assert install(tmp_path).returncode == 1, "the wheel without desktop is not there yet"
    write_wheel(tmp_path / "wheels", "opencv_python_headless", HEADLESS)
    for folder in tmp_path.glob(".venv/lib/python*/site-packages/pip*"):
        shutil.rmtree(folder)
    replaced = install(tmp_path)
    assert (replaced.returncode, replaced.stderr) == (0, "")
    assert "has no pip that runs: installing pip" in replaced.stdout
    line = (
        "libGL.so.1 is missing here, so opencv-python is replaced by opencv-python-headless==4.2 (no desktop windows)"
    )
    assert replaced.stdout.splitlines().count(line) == 1
    again = install(tmp_path)
    assert (again.returncode, again.stderr) == (0, "") and "replaced" not in again.stdout
    assert {file.name.partition("-")[0] for file in tmp_path.glob(".venv/lib/python*/site-packages/opencv*")} == {
        "opencv_python",
        "opencv_python_headless",
    }
    assert subprocess.run([python, "-c", "import cv2; assert cv2.headless"]).returncode == 0
    for file in tmp_path.glob(".venv/lib/python*/site-packages/cv2/*.py"):
        file.unlink()  # as if `make` had been killed while it replaced the package
    repaired = install(tmp_path)
    assert (repaired.returncode, repaired.stderr) == (0, "") and "installing it again" in repaired.stdout
    assert line in repaired.stdout
    assert subprocess.run([python, "-c", "import cv2; assert cv2.headless"]).returncode == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sys.version_info = (3, 9, 2)", "is Python 3.9.2, but 3.11 or newer is needed: make PYTHON=python3.12"),
        (
            "sys.modules['ensurepip'] = None",
            "has no venv with pip; install it (Debian, Ubuntu: apt-get install",
        ),
    ],
)
def test_an_unsuitable_python_is_one_line(tmp_path: Path, change: str, said: str) -> None:
    code = f"import runpy, sys; {change}; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = code.replace("sys.argv[0]", repr(str(ROOT / "tools" / "install.py")))
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / ".venv", "x"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr and len(ran.stderr.splitlines()) == 1
