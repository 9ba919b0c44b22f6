"""What can go wrong, and the exit code that each kind of trouble ends with."""


class UserFacingError(Exception):
    """Something that a user can cause or mend: shown as one line, never as a traceback."""

    exit_code = 2


class SettingsError(UserFacingError):
    """A wrong option, setting or input file (exit 2)."""


class ArtifactError(UserFacingError):
    """A cache, model or weights file that is damaged or foreign (exit 4)."""

    exit_code = 4


class DamagedCacheError(ArtifactError):
    """A cache of this program whose content is not what was written: extracting again mends it."""


class RuntimeEnvironmentError(UserFacingError):
    """The machine stopped the job: disk full, no permission (exit 5). Safe to run again."""

    exit_code = 5


class ClipError(Exception):
    """One clip cannot be used. It is an entry of the failure ledger, never the end of a job."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.stage, self.reason))
