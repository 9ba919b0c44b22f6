"""Ends with 0 where a monitor on this machine looked at its cameras within the last minute, else with 1 and why."""

import sys
import time
import urllib.request

METRIC, MOST_SECONDS = "hazard_last_look_timestamp_seconds", 60.0


def main(url: str = "http://127.0.0.1:9108/metrics") -> str | None:
    """Why it is not healthy; None where it is."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        return f"{url}: {error}"
    looked = [float(line.split()[1]) for line in lines if line.startswith(METRIC + " ")]
    if not looked:
        return "the cameras are not open yet"
    age = time.time() - looked[0]
    return f"cameras were last looked at {age:.0f} s ago" if age > MOST_SECONDS else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
