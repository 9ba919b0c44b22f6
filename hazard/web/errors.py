"""A request that is not done, and why: what people read, with the status that programs read."""


class RequestError(Exception):
    """One request is refused."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
