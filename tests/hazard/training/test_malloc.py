import subprocess
import sys

import pytest

from hazard.training.malloc import keep_freed_memory
from tests.helpers.paths import ROOT

PROBE = """
import resource
from hazard.training.malloc import keep_freed_memory
if {keep}:
    keep_freed_memory()
for turn in range(11):
    bytearray(2**26)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    command = [sys.executable, "-c", PROBE.format(keep=keep)]
    return int(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)


def test_memory_that_was_freed_is_not_asked_for_again():
    if not keep_freed_memory():
        pytest.skip("no glibc")
    assert faults(keep=True) < faults(keep=False) / 10
