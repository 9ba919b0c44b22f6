"""One line about a library that cannot be loaded, in the words of each system."""

import ctypes
import sys

import pytest

from features.utils.missing_libraries import describe_missing_library

PIP = f"{sys.executable} -m pip"
AGAIN = "install --force-reinstall --no-deps"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory", name="cv2"),
            ("libGL.so.1 is missing", f"{PIP} {AGAIN} opencv-python-headless=="),
        ),
        (
            ImportError("/lib/x86_64-linux-gnu/libxcb.so.1: file too short", name="cv2"),
            ("libxcb.so.1 is damaged", "apt-get install libgl1", f"{PIP} {AGAIN} opencv-python-headless=="),
        ),
        (
            ImportError("/x/site-packages/cv2/cv2.abi3.so: file too short", name="cv2"),
            ("cv2.abi3.so: file too short", f"{PIP} {AGAIN} opencv-python"),
        ),
        (
            ImportError("Error loading shared library libgcc_s.so.1: No such file (needed by x)", name="numpy._core"),
            ("numpy cannot be loaded", "libgcc_s.so.1 is missing", f"{PIP} {AGAIN} numpy=="),
        ),
        (
            ImportError("dlopen(a.so, 0x2): Library not loaded: @rpath/libhdf5.dylib\n  ...", name="h5py._errors"),
            ("h5py cannot be loaded", "libhdf5.dylib is missing", f"{PIP} {AGAIN} h5py=="),
        ),
        (
            ImportError("DLL load failed while importing cv2: The specified module could not be found.", name="cv2"),
            ("OpenCV cannot be loaded", "a DLL is missing", "Visual C++ Redistributable", "opencv-python-headless"),
        ),
        (
            OSError('[WinError 126] Error loading "C:\\torch\\lib\\c10.dll" or one of its dependencies.'),
            ("a DLL is missing", "Visual C++ Redistributable"),
        ),
        (
            ImportError("libc.so.6: version `GLIBC_2.38' not found (required by cv2.abi3.so)", name="cv2"),
            ("OpenCV cannot be loaded: libc.so.6: version `GLIBC_2.38' not found",),
        ),
        (
            ImportError("\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: wrong processor\n", name="numpy._core"),
            ("numpy cannot be loaded: wrong processor", f"{PIP} {AGAIN} numpy=="),
        ),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), (f"OpenCV is not installed; install it: {PIP}",)),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), ("h5py is not installed", f"{PIP} check")),
        (ModuleNotFoundError("No module named '_sqlite3'", name="_sqlite3"), ("this Python has no module _sqlite3",)),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_line(error: Exception, said: tuple[str, ...]) -> None:
    line = describe_missing_library(error) or ""
    assert [part for part in said if part not in line] == []
    assert len(line.splitlines()) == 1


def test_a_library_that_ctypes_does_not_find_is_named() -> None:
    with pytest.raises(OSError) as raised:
        ctypes.CDLL("libno-such-thing.so.3")
    if sys.platform == "linux":
        assert "libno-such-thing.so.3 is missing" in (describe_missing_library(raised.value) or "")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'features.x'", name="features.x"),
        ImportError("cannot import name 'x' from 'hazard.types'", name="hazard.types"),
        ImportError("a script of the user"),
        FileNotFoundError(2, "No such file or directory", "x.csv"),
        ValueError("x"),
    ],
)
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert describe_missing_library(error) is None
