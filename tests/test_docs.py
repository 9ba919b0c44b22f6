"""The pages: the README's commands run as printed, all commands have options that exist, all links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
import pytest
import torch
from torchvision.models import mobilenet_v2

from features.cli.extract import extract_features
from features.cli.manage import features
from hazard.cli.infer import infer
from hazard.cli.main import hazard
from hazard.cli.monitor import monitor
from hazard.cli.train import train_temporal
from hazard.synthetic.clips import draw_clip
from hazard.synthetic.recordings import draw_recording
from tests.conftest import Run
from tests.helpers.paths import ROOT

README = ROOT / "README.md"
PAGES = sorted(file for glob in ("*.md", "docs/*.md", "features/**/*.md", "hazard/**/*.md") for file in ROOT.glob(glob))
PROGRAMS = {
    "extract_features.py": extract_features, "extract-features": extract_features, "infer.py": infer,
    "hazard-infer": infer, "train_temporal.py": train_temporal, "train-temporal": train_temporal,
}  # fmt: skip
GROUPS = {"hazard": hazard, "features": features}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read_commands(page: Path) -> list[str]:
    """Return the commands in the code blocks of a page, without comments and without the output of a `$` block."""
    commands = []
    for language, block in FENCE.findall(page.read_text()):
        lines = block.splitlines()
        if prompts := [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]:
            lines = prompts
        elif language not in ("", "sh", "bash"):
            continue
        commands += [re.sub(r"\s{2,}#.*", "", line) for line in lines]
    return commands


def find_program(line: str) -> tuple[click.Command, list[str]] | None:
    """Return the program that a line calls and its arguments, or None if it is not one of ours."""
    words = shlex.split(line) if re.match(r"(python |hazard|extract|train|infer)", line) else []
    words = words[1:] if words[:1] == ["python"] else words
    words = words[1:] if words[:1] == ["-m"] else words
    if words and words[0] in PROGRAMS:
        return PROGRAMS[words[0]], words[1:]
    if len(words) > 1 and words[0] in GROUPS and words[1] in GROUPS[words[0]].commands:
        return GROUPS[words[0]].commands[words[1]], words[2:]
    return None


def test_every_command_of_the_pages_names_options_that_exist() -> None:
    count = 0
    for page in PAGES:
        for program, words in filter(None, map(find_program, read_commands(page))):
            try:
                program.make_context("program", list(words))
            except click.MissingParameter:  # "hazard monitor … -o watch/"
                pass
            except click.UsageError as error:
                pytest.fail(f"{page.relative_to(ROOT)}: {' '.join(words)}: {error.format_message()}")
            count += 1
    assert count > 40


def test_every_link_of_the_pages_leads_somewhere() -> None:
    links = [
        (page, page.parent, target)
        for page in PAGES
        for target in re.findall(r"(?:\]\(|src=\")([^)\"\s]+)", FENCE.sub("", page.read_text()))
        if not re.match(r"[a-z]+:", target)
    ]
    for folder, ending in (("features", "py"), ("hazard", "py"), ("configs", "yaml"), ("benchmarks", "py")):
        for file in (ROOT / folder).rglob(f"*.{ending}"):  # messages, docstrings and comments that name a page
            links += [(file, ROOT, target) for target in re.findall(r"docs/\w+\.md(?:#[\w-]+)?", file.read_text())]
    broken = []
    for page, folder, target in links:
        path, _, anchor = target.partition("#")
        file = folder / path if path else page
        if not file.exists() or (anchor and anchor not in read_anchors(file)):
            broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert len(links) > 100 and not broken


def read_anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 1650


# ---- the commands of the README, as printed -----------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the videos and files that the README speaks of and enter their folder. The weights are random."""
    names = [f"videos/{label}/{number}.mp4" for number in range(5) for label in ("fight", "normal")]
    for seed, name in enumerate([*names, "new_videos/a.mp4", "clip.mp4", "door.mp4", "yard.mp4"]):
        action = "walk" if "normal" in name else "fight"
        draw_clip(tmp_path / name, action, seed=seed, size=(160, 120), seconds=1, frame_rate=12)
    (tmp_path / "manifest.csv").write_text("path\n" + "\n".join(names[:2]))
    draw_recording(tmp_path / "recording.mp4", events=[(2, 5, "fight")], seconds=8)
    (tmp_path / "alerts.yaml").write_text(
        "alerts: {channels: [{kind: mqtt, host: 127.0.0.1, port: 9}]}"  # nobody answers; the alerts stay in the outbox
    )
    torch.manual_seed(0)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "mobilenet_v2.pth")
    monkeypatch.setenv("FEATURES_WEIGHTS", str(tmp_path / "mobilenet_v2.pth"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = {
    extract_features: ["--runtime", "torch", "--workers", "1"],
    train_temporal: ["--epochs", "1", "--set", "members=1"],
    infer: ["--runtime", "torch", "--workers", "1"],
    monitor: ["--runtime", "torch"],
}
"""Options that only save time."""


def test_the_commands_of_the_readme_run_as_printed(workplace: Path, run: Run) -> None:
    """Everything but `make`, `pip` and the addresses of cameras. `hazard serve` also gets a free port."""
    served, asked = [], []
    for line in filter(None, read_commands(README)):
        if line.startswith(("make ", "pip install ")):
            continue
        if line.startswith("hazard serve "):
            served.append(line)
        elif line.startswith("curl "):
            asked.append(line)
        else:
            found = find_program(re.sub(r"(\w+)=rtsp://\S+", r"\1=\1.mp4", line))
            assert found, line
            program, words = found
            ran = run(program, *words, *QUICK[program])
            assert ran.code == 0, (line, ran.err)
    assert (workplace / "report" / "report.html").is_file()
    [page, cameras] = served
    [curl] = asked
    with serving(page) as url:
        answer = subprocess.run(
            shlex.split(curl.replace("http://127.0.0.1:8000", url)), capture_output=True, timeout=120, check=True
        )
        result = httpx.Response(200, content=answer.stdout).json()
        assert result["name"] == "clip.mp4" and result["status"] == "ok"
        assert {"start", "end", "label", "confidence", "top5"} == result["segment_predictions"][0].keys()
    with serving(cameras) as url:
        assert [camera["name"] for camera in httpx.get(f"{url}/api/cameras").json()["cameras"]] == ["door", "yard"]
    for page in (README, ROOT / "docs" / "caches.md"):
        for code in (code for language, code in FENCE.findall(page.read_text()) if language == "python"):
            names: dict = {}
            exec(code, names)  # noqa: S102
            assert len(names["paths"]) == 10 and names["first"].shape == (12, 512) and len(names["times"]) == 12


@contextmanager
def serving(line: str) -> Iterator[str]:
    """Run `hazard serve` in a process on a free port, and yield its URL."""
    pytest.importorskip("fastapi", reason="pip install '.[serve]'")
    if not shutil.which("curl"):
        pytest.skip("curl is not there (Debian: apt-get install curl)")
    command = [sys.executable, "-m", *shlex.split(line), "--port", "0", "--runtime", "torch"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout
        try:
            yield next(found[0] for said in program.stdout if (found := re.search(r"http://[\d.:]+", said)))
        finally:
            program.terminate()
            program.wait(30)


def test_the_line_for_completion_works_in_bash(tmp_path: Path) -> None:
    [line] = re.findall(r"`(eval .*_HAZARD_COMPLETE.*)`", README.read_text())
    program = tmp_path / "hazard"
    program.write_text(f"#!{sys.executable}\nfrom hazard.cli.main import main\nmain()\n")
    program.chmod(0o755)
    ask = "COMP_WORDS=(hazard mon) COMP_CWORD=1; _hazard_completion hazard mon; echo ${COMPREPLY[@]}"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    said = subprocess.run(["bash", "-c", f"{line}\n{ask}"], env=environment, capture_output=True, text=True)
    assert said.stdout == "monitor\n", said.stderr
