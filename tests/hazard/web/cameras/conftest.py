"""The folder of a monitor, and a client of the pages that show it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.helpers.data.monitor_folders import MonitorFolder, make_client


@pytest.fixture
def scene(tmp_path: Path) -> MonitorFolder:
    return MonitorFolder(tmp_path / "yard")


@pytest.fixture
def client(scene: MonitorFolder, tmp_path: Path) -> Iterator[TestClient]:
    with make_client(tmp_path, yard=scene) as opened:
        yield opened
