"""A health check: exit code 0 if the local monitor polled its cameras in the last minute, else 1 and a reason."""

import sys
import time
import urllib.request

METRIC, MAX_AGE_SECONDS = "hazard_last_look_timestamp_seconds", 60.0


def main(url: str = "http://127.0.0.1:9108/metrics") -> str | None:
    """Return why the monitor is not healthy, or None if it is."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        return f"{url}: {error}"
    timestamps = [float(line.split()[1]) for line in lines if line.startswith(METRIC + " ")]
    if not timestamps:
        return "the cameras are not open yet"
    age = time.time() - timestamps[0]
    return f"cameras were last looked at {age:.0f} s ago" if age > MAX_AGE_SECONDS else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
