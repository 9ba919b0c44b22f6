"""Settings of the server: section `serve` of a settings file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr


class ServeSettings(BaseModel):
    """Section `serve` of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Path] = {}
    """By the name that people choose it by, the folder of each model; the first is used where none is chosen."""
    monitors: dict[str, Path] = {}
    """By the name of the site, the output folder of each `hazard monitor` whose cameras are shown."""
    host: str = "127.0.0.1"
    """Another address than this machine's own needs a token."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0: a free one."""
    token: SecretStr | None = None
    """Who uses the page or the API must know it; `hazard serve` takes it from $HAZARD_TOKEN too."""
    hosts: tuple[str, ...] = ()
    """Names by which the server is called, besides its address and localhost; others are refused."""
    data: Path = Path("serve")
    """Where uploads and results are kept."""
    keep_hours: float = Field(default=24.0, gt=0)
    """Uploads and results are removed after so long."""
    keep_gigabytes: float = Field(default=20.0, gt=0)
    """Of more the oldest are removed; uploads are refused where what runs fills it."""
    max_bytes: int = Field(default=500_000_000, ge=1)
    """The largest upload, and the largest video that is fetched from an address."""
    upload_seconds: float = Field(default=300.0, gt=0)
    """How long one upload may take to come."""
    job_seconds: float = Field(default=900.0, gt=0)
    """How long the work on one video may take."""
    wait_seconds: float = Field(default=120.0, gt=0)
    """How long `POST /predict` waits for its answer before it says where that will be."""
    uploads: int = Field(default=8, ge=1)
    """Uploads that may come at the same time."""
    queue: int = Field(default=100, ge=1)
    """Videos that may wait."""
    workers: int = Field(default=1, ge=1)
    """Worker processes; each decodes and encodes on one core."""
    networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that pasted addresses may lead to besides public ones, such as `192.168.1.0/24`."""
