"""What a command says when Python cannot load a library: what is missing, and how to get it."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from features.errors import RuntimeEnvironmentError

NOT_LIBRARIES = ("features", "hazard", "__main__", "")
"""Where an ImportError says nothing of a library: our packages, a script, and a place that is not known."""
DEBIAN_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libgcc_s.so.1": "libgcc-s1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
}
OPENCV_DEBIAN_PACKAGES = "libgl1 libglib2.0-0"
"""Packages that bring, with what they need themselves, all libraries of the desktop that OpenCV loads."""
_MISSING_FILE = re.compile(
    r"(?P<linux>[^\s:'\"]+): cannot open shared object file"
    r"|(?<!\S)(?P<damaged>/(?:(?!site-packages|dist-packages)[^\s:'\"])+): "
    r"(?:file too short|invalid ELF header|wrong ELF class)"
    r"|Error loading shared library (?P<musl>[^\s:]+):"
    r"|Library not loaded: (?P<macos>\S+)"
    r"|DLL load failed while importing (?P<windows>\w+)"
    r"|(?:Error loading|Could not find module) [\"'](?P<dll>[^\"']+)[\"'] \(?or one of its dependencies"
)
"""How the systems say that a shared library is missing or damaged. ctypes raises OSError with the same words."""


@contextmanager
def explain_missing_libraries() -> Iterator[None]:
    """Raise RuntimeEnvironmentError with one line about what to do if a library cannot be loaded in this block."""
    try:
        yield
    except (ImportError, OSError) as error:
        if (line := describe_missing_library(error)) is None:
            raise
        raise RuntimeEnvironmentError(line) from error


def describe_missing_library(error: BaseException) -> str | None:
    """Return one line about a library that cannot be loaded and what to do; None for any other error."""
    package = _find_package(error)
    if found := _MISSING_FILE.search(str(error)):
        name = re.split(r"[/\\]", next(text for text in found.groups() if text))[-1]
        state = "damaged" if found["damaged"] else "missing"
        return _describe_missing_file(package, name, state, is_windows=bool(found["windows"] or found["dll"]))
    if not isinstance(error, ImportError) or package in NOT_LIBRARIES:
        return None
    if isinstance(error, ModuleNotFoundError):
        return _describe_missing_package(package)
    reason = _find_reason(str(error))
    again = _format_reinstall_command(package)
    return f"{_title(package)} cannot be loaded: {reason}" + (f"; install it again: {again}" if again else "")


def _find_reason(text: str) -> str:
    """Return the line of an error's text that says why: NumPy's follows a page of advice."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    original = [line.partition(":")[2].strip() for line in lines if line.startswith("Original error was:")]
    return next(iter([*original, *lines]), "it gives no reason")


def _find_package(error: BaseException) -> str:
    """Return the top-level package whose import failed: the one that the error names, else the last one that ran."""
    name = error.name if isinstance(error, ImportError) else None
    if name:
        return name.partition(".")[0]
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]
    return next((package for package in reversed(packages) if package not in sys.stdlib_module_names), "")


def _describe_missing_file(package: str, name: str, state: str, *, is_windows: bool) -> str:
    if is_windows:
        cause = "a DLL is missing"
        remedy = "install the Visual C++ Redistributable (https://aka.ms/vs/17/release/vc_redist.x64.exe)"
    else:
        cause = f"the shared library {name} is {state}"
        remedy = f"install it{_name_debian_package(package, name)}"
    sentence = f"{_title(package)} cannot be loaded, because {cause}"
    if package == "cv2":
        return f"{sentence}; either {remedy}, or use OpenCV without desktop windows: {_format_headless_command()}"
    if other := _format_reinstall_command(package):
        return f"{sentence}; either {remedy}, or install {_title(package)} again: {other}"
    return f"{sentence}; {remedy}"


def _name_debian_package(package: str, name: str) -> str:
    if sys.platform != "linux":
        return ""
    is_basic = name in ("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1")
    known = OPENCV_DEBIAN_PACKAGES if package == "cv2" and not is_basic else DEBIAN_PACKAGES.get(name)
    return f" (Debian, Ubuntu: {f'apt-get install {known}' if known else f'apt-file search {name}'})"


def _describe_missing_package(package: str) -> str:
    if package in sys.stdlib_module_names:
        return f"this Python has no module {package}; use a Python with its whole standard library"
    if package == "cv2":
        return f"OpenCV is not installed; install it: {_format_pip_command('install', 'opencv-python')}"
    return f"the library {package} is not installed; `{_format_pip_command('check')}` lists what is missing"


def _title(package: str) -> str:
    return {"cv2": "OpenCV", "av": "PyAV", "": "a library"}.get(package, package)


def _format_headless_command() -> str:
    """Return the command that keeps the metadata of opencv-python, so that pip still counts it as installed."""
    from importlib.metadata import packages_distributions, version  # here, because commands start without it

    installed = packages_distributions().get("cv2")
    pin = f"=={version(installed[0])}" if installed else ""
    return _format_pip_command("install", "--force-reinstall", "--no-deps", f"opencv-python-headless{pin}")


def _format_reinstall_command(package: str) -> str:
    """Return the command that installs a package again; empty if pip did not install it."""
    from importlib.metadata import packages_distributions, version

    names = sorted(set(packages_distributions().get(package, ())))
    if package == "cv2":
        names = names[-1:]  # opencv-python-headless, where it took the place of opencv-python
    pins = [f"{name}=={version(name)}" for name in names]
    return _format_pip_command("install", "--force-reinstall", "--no-deps", *pins) if pins else ""


def _format_pip_command(*words: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", *words])
