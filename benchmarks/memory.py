"""Peak memory of runs over more and more clips, which must stay flat.

    .venv/bin/python benchmarks/memory.py [100 500 2000]

Each size is one run of the real command in its own process, on tiny synthetic clips, with random weights and two
workers. Peaks are VmHWM of /proc (Linux), read every tenth of a second. The worker peak is that of the largest worker.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).parent.parent
SIZE, FRAMES, VARIANTS = (64, 48), 5, 10


def draw(folder: Path, count: int) -> None:
    """Write ten different clips and link them until there are `count` files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for variant in range(min(VARIANTS, count)):
        with av.open(str(folder / f"{variant:05d}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for _ in range(FRAMES):
                image = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode(None))
    for i in range(VARIANTS, count):
        os.link(folder / f"{i % VARIANTS:05d}.mp4", folder / f"{i:05d}.mp4")


def read_memory(pid: int) -> tuple[int, int]:
    """Return the parent of a process and its peak memory in bytes, or (0, 0) if the process has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["PPid"]), int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0, 0


def measure(count: int, *options: str) -> tuple[int, int, float]:
    """Return the peak bytes of the main process and of the largest worker, and the seconds of the run."""
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        draw(clips, count)
        command = [sys.executable, "extract_features.py", str(clips), "-o", f"{folder}/c.h5", "--weights", "random"]
        began = time.monotonic()
        with subprocess.Popen(
            [*command, "--workers", "2", *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            main = worker = 0
            while process.poll() is None:
                seen = {int(p.name): read_memory(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
                main = max(main, seen.get(process.pid, (0, 0))[1])
                family = {process.pid}
                for _ in range(3):  # the fork server, and its workers
                    family |= {pid for pid, (parent, _) in seen.items() if parent in family}
                worker = max([worker, *(seen[pid][1] for pid in family - {process.pid} if pid in seen)])
                time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"the run over {count} clips failed with exit code {process.returncode}")
        return main, worker, time.monotonic() - began


def main() -> None:
    counts = [int(text) for text in sys.argv[1:] if text.isdecimal()] or [100, 500, 2000]
    options = [text for text in sys.argv[1:] if not text.isdecimal()]
    print(f"{'clips':>6} {'main MB':>8} {'worker MB':>10} {'seconds':>8}")
    for count in counts:
        main_bytes, worker_bytes, seconds = measure(count, *options)
        print(f"{count:>6} {main_bytes / 1e6:>8.0f} {worker_bytes / 1e6:>10.0f} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
