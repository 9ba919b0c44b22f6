"""What `make` runs to install: a virtual environment, pip in a few lines, and an OpenCV that loads on this machine.

    python3 tools/install.py VENV ARGUMENTS-OF-PIP-INSTALL...

It needs nothing but Python, and says in one line what it cannot do. An old Python can read this file too, so it cannot
use `features.utils.missing_libraries`, which knows the same messages of the loader.
"""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

OLDEST_PYTHON = (3, 11)
MIN_SHOWN_MEGABYTES = 40
"""Size of the smallest download that gets a line."""
MISLEADING_SETTINGS = ("PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", "PIP_USER")
"""Settings of pip with which it would not install into the virtual environment."""
SHOWN_LINES = 15
"""Most lines of pip's output that are shown when it fails."""


def main(venv: str, arguments: list) -> None:
    """Install into the virtual environment, which is made if there is none."""
    began = time.time()
    python, log = os.path.join(venv, "bin", "python"), os.path.join(venv, "pip.log")
    make_environment(venv, python)
    print(f"pip install {' '.join(arguments)} (all it says: {log})", flush=True)
    run_pip(python, log, arguments)
    replace_opencv_if_needed(python, log)
    print(f"installed in {time.time() - began:.0f} s", flush=True)


def make_environment(venv: str, python: str) -> None:
    """Make the virtual environment, or complete one whose making was interrupted."""
    if run([python, "-m", "pip", "--version"])[0] == 0:
        return
    if sys.version_info < OLDEST_PYTHON:
        (major, minor), found = OLDEST_PYTHON, ".".join(map(str, sys.version_info[:3]))
        stop(f"{sys.executable} is Python {found}, but {major}.{minor} or newer is needed: make PYTHON=python3.12")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        stop(f"{sys.executable} has no venv with pip; install it (Debian, Ubuntu: apt-get install python3-venv)")
    if run([python, "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"])[0] == 0:
        print(f"{venv} has no pip that runs: installing pip", flush=True)
        code, output = run([python, "-m", "ensurepip", "--upgrade"])
    else:
        folder = Path(venv)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            stop(f"{venv} holds other files and is no virtual environment; remove it or give another: make VENV=FOLDER")
        print(f"making the virtual environment {venv}", flush=True)
        code, output = run([sys.executable, "-m", "venv", "--clear", venv])
    if code or run([python, "-m", "pip", "--version"])[0]:
        stop(f"{venv} cannot be made or repaired: {find_last_line(output)}; remove this folder and run make again")


def run_pip(python: str, log: str, arguments: list) -> None:
    """Run `pip install`. Its output goes to the log; large downloads and the last lines of a failure are shown."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
    environment = {name: value for name, value in os.environ.items() if name not in MISLEADING_SETTINGS}
    lines = []
    with (
        open(log, "ab") as file,
        subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        ) as pip,
    ):
        try:
            for line in pip.stdout:
                file.write(line)
                lines.append(line.decode("utf-8", "replace").rstrip())
                show_progress(lines[-1])
        except KeyboardInterrupt:
            pip.wait()  # it got the signal too, and takes back what it had begun
            raise
    if pip.returncode:
        print("\n".join(lines[-SHOWN_LINES:]), file=sys.stderr)
        stop(f"pip failed, see its last lines above and all of them in {log}; run make again once that is solved")


def show_progress(line: str) -> None:
    """Print a line of pip's if what it announces takes long."""
    download = re.match(r"\s*Downloading (?:\S*/)?([^/\s]+?)-[0-9]\S* \(([0-9.]+) ([MG])B\)", line)
    if download:
        megabytes = float(download.group(2)) * (1000 if download.group(3) == "G" else 1)
        if megabytes >= MIN_SHOWN_MEGABYTES:
            print(f"  downloading {download.group(1)} ({megabytes:.0f} MB)", flush=True)
    elif line.startswith("Installing collected packages:"):
        print(f"  unpacking {line.count(',') + 1} packages", flush=True)


def replace_opencv_if_needed(python: str, log: str) -> None:
    """Replace opencv-python by OpenCV without desktop windows if this machine lacks a library of the desktop.

    The files of opencv-python-headless replace those of opencv-python, whose metadata stays. So pip counts the declared
    dependency as installed, and the next `make` changes nothing.
    """
    reason = find_opencv_error(python)
    if not reason:
        return
    version = run([python, "-c", "from importlib.metadata import version; print(version('opencv-python'))"])[1].strip()
    if not find_missing_library(reason):  # such as files that are cut off, because an earlier `make` was killed
        print(f"OpenCV cannot be loaded ({reason}): installing it again", flush=True)
        run_pip(python, log, ["--force-reinstall", "--no-deps", f"opencv-python=={version}"])
        reason = find_opencv_error(python)
    library = find_missing_library(reason)
    if library:
        headless = f"opencv-python-headless=={version}"
        print(f"{library} is missing here, so opencv-python is replaced by {headless} (no desktop windows)", flush=True)
        run_pip(python, log, ["--force-reinstall", "--no-deps", headless])
        reason = find_opencv_error(python)
    if reason:
        stop(f"OpenCV cannot be loaded: {reason}; remove the virtual environment (make clean) and run make again")


def find_opencv_error(python: str) -> str:
    """Return the reason why OpenCV cannot be loaded; empty if it can."""
    code, output = run([python, "-c", "import cv2; cv2.__version__"])  # a folder without files can be imported too
    return find_last_line(output) if code else ""


def find_missing_library(reason: str) -> str:
    """Return the system's shared library that is missing or damaged by the reason of an error; empty if none is."""
    found = re.search(
        r"([^\s:]+): cannot open shared object file|Error loading shared library ([^\s:]+):"
        r"|(?<!\S)(/(?:(?!site-packages)[^\s:])+): (?:file too short|invalid ELF header|wrong ELF class)",
        reason,
    )
    return next(Path(name).name for name in found.groups() if name) if found else ""


def run(command: list) -> tuple:
    """Return the exit code of a command and what it printed; 127 if it does not exist."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def find_last_line(output: str) -> str:
    """Return the last line that is not empty, which holds the reason of an error."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no reason given")


def stop(reason: str) -> None:
    """End with one line and exit code 1."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except PermissionError as error:
        stop(f"{error.filename}: {error.strerror}; give it to the user who runs make, or remove it and run make again")
    except OSError as error:
        stop(f"{error.filename or sys.argv[1]}: {error.strerror}; solve this and run make again")
    except KeyboardInterrupt:
        sys.exit(130)
