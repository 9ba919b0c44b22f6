"""report.json: everything of a report, one clip a line, as `schemas/report.schema.json` says."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from hazard.report.facts import ReportInfo, Summary, is_correct
from hazard.types import ClipPrediction, WindowPredictions
from hazard.utils.text import plain

SCHEMA = 2
_DIGITS = 6


def report_schema() -> dict[str, Any]:
    """The published schema of report.json, JSON Schema 2020-12."""
    return json.loads(files("hazard.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))


@contextmanager
def json_report(
    file: Path, info: ReportInfo, summary: Summary, evaluation: Mapping[str, object] | None
) -> Iterator[Callable[[ClipPrediction], None]]:
    """A function that writes one clip. Failures, which come between, are kept aside in a file until the end."""
    aside = file.with_name(f"{file.name}.failures")
    try:
        with _text_file(file, "w") as clips, _text_file(aside, "w+") as failures:
            clips.write(_opening(info, summary, evaluation))
            rows, lost = _Array(clips), _Array(failures)

            def add(clip: ClipPrediction) -> None:
                if clip.status == "failed":
                    lost.add({"path": clip.path, "status": clip.status, "reason": clip.reason})
                else:
                    rows.add(clip_json(clip, info))

            yield add
            clips.write('\n],\n"failures": [')
            failures.seek(0)
            clips.writelines(failures)
            clips.write("\n]\n}\n")
    finally:
        aside.unlink(missing_ok=True)


def clip_json(clip: ClipPrediction, info: ReportInfo) -> dict[str, object]:
    """What report.json says of a clip that was looked at."""
    probabilities = {label: round(p, _DIGITS) for label, p in zip(info.labels, clip.probs, strict=True)}
    return {
        "path": clip.path,
        "status": clip.status,
        "reason": clip.reason,
        "label": clip.label,
        "probability": probabilities[clip.label],
        "probabilities": probabilities,
        "truth": clip.truth or None,
        "correct": is_correct(clip, info),
        "duration_seconds": clip.duration,
        "is_unknown": bool(clip.is_unknown),
        "unknown_score": clip.unknown_score,
        "zero_shot": [{"label": name, "probability": round(float(p), _DIGITS)} for name, p in clip.zero_shot],
        "events": [asdict(event) for event in clip.events],
        "windows": None if clip.windows is None else _windows_json(clip.windows, info),
        "attention": {"seconds": clip.attention_times, "weights": clip.attention} if clip.attention else None,
    }


def _windows_json(windows: WindowPredictions, info: ReportInfo) -> dict[str, object]:
    """By column: hours of video are many windows."""
    probs = windows.probs.round(_DIGITS).T.tolist()  # (K, B)
    return {
        "start": windows.spans[:, 0].round(_DIGITS).tolist(),
        "end": windows.spans[:, 1].round(_DIGITS).tolist(),
        "probabilities": dict(zip(info.labels, probs, strict=True)),
    }


def _opening(info: ReportInfo, summary: Summary, evaluation: Mapping[str, object] | None) -> str:
    facts = {
        "schema": SCHEMA,
        **vars(info),
        "rules": [asdict(rule) for rule in info.rules],
        "summary": {**asdict(summary), "accuracy": summary.accuracy},
        "evaluation": evaluation,
    }
    lines = ",\n".join(f"{_dumps(key)}: {_dumps(value)}" for key, value in facts.items())
    return "{\n" + lines + ',\n"clips": ['


class _Array:
    """The items of a JSON array, a line each."""

    def __init__(self, handle: IO[str]) -> None:
        self.handle, self.between = handle, "\n"

    def add(self, item: Mapping[str, object]) -> None:
        self.handle.write(self.between + _dumps(item))
        self.between = ",\n"


def _dumps(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _text_file(file: Path, mode: str) -> IO[str]:
    """Lone surrogates, of names that are not UTF-8, are written as `\\udcXX`, which JSON reads back."""
    return open(file, mode, encoding="utf-8", errors="backslashreplace", newline="")
