"""The error of a rejected request: an HTTP status and a reason in words."""


class RequestError(Exception):
    """A rejected request, with its HTTP status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
