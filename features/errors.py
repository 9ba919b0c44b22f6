"""Exceptions of both stages, and the exit code that each of them gives a command."""


class UserFacingError(Exception):
    """An error that a user can cause or fix. It is shown as one line, never as a traceback."""

    exit_code = 2


class SettingsError(UserFacingError):
    """A wrong option, setting or input file (exit code 2)."""


class ArtifactError(UserFacingError):
    """A cache, model or weights file that is damaged or does not fit (exit code 4)."""

    exit_code = 4


class DamagedCacheError(ArtifactError):
    """A cache of this program whose content is not what was written. Extracting again fixes it."""


class RuntimeEnvironmentError(UserFacingError):
    """The machine stopped the job: disk full, no permission (exit code 5). It is safe to run the command again."""

    exit_code = 5


class ClipError(Exception):
    """One clip cannot be used. It becomes an entry of the failure table and never ends a job."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.stage, self.reason))
