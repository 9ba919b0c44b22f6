"""The settings of the server: section `serve` of a settings file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr


class ServeSettings(BaseModel):
    """Section `serve` of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Path] = {}
    """The folder of each model, by the name that users choose. The first is the default."""
    monitors: dict[str, Path] = {}
    """The output folder of each `hazard monitor` whose cameras are shown, by the name of its site."""
    host: str = "127.0.0.1"
    """The address to listen on. Any address that other machines can reach needs a token."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port; 0 chooses a free one."""
    token: SecretStr | None = None
    """The token that users and programs must send. `hazard serve` also reads it from $HAZARD_TOKEN."""
    hosts: tuple[str, ...] = ()
    """Accepted host names besides the server's address and localhost. Requests to other names are rejected."""
    data: Path = Path("serve")
    """The folder of uploads and results."""
    keep_hours: float = Field(default=24.0, gt=0)
    """Hours after which uploads and results are deleted."""
    keep_gigabytes: float = Field(default=20.0, gt=0)
    """Disk space of all jobs. The oldest are deleted first; uploads are rejected while unfinished jobs fill it."""
    max_bytes: int = Field(default=500_000_000, ge=1)
    """The largest upload, and the largest video that is fetched from a URL."""
    upload_seconds: float = Field(default=300.0, gt=0)
    """The longest time that one upload may take."""
    job_seconds: float = Field(default=900.0, gt=0)
    """The longest time that the analysis of one video may take."""
    wait_seconds: float = Field(default=120.0, gt=0)
    """The time that `POST /predict` waits for the result before it answers with the job."""
    uploads: int = Field(default=8, ge=1)
    """The largest number of uploads at the same time."""
    queue: int = Field(default=100, ge=1)
    """The largest number of waiting videos."""
    workers: int = Field(default=1, ge=1)
    """The number of worker processes. Each decodes and encodes on one core."""
    networks: tuple[IPvAnyNetwork, ...] = ()
    """Private networks from which URLs may be fetched, besides public addresses, such as `192.168.1.0/24`."""
