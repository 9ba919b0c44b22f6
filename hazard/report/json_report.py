"""report.json: everything of a report, one clip a line, as `schemas/report.schema.json` says."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from hazard.report.facts import ReportInfo, ReportSummary, is_correct
from hazard.types import ClipPrediction, WindowPredictions
from hazard.utils.text import to_json_value

SCHEMA_VERSION = 2
_DECIMALS = 6


def report_schema() -> dict[str, Any]:
    """The published schema of report.json, JSON Schema 2020-12."""
    return json.loads(files("hazard.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))


@contextmanager
def open_json_report(
    file: Path, info: ReportInfo, summary: ReportSummary, evaluation: Mapping[str, object] | None
) -> Iterator[Callable[[ClipPrediction], None]]:
    """A function that writes one clip. Failures, which come between, are kept aside in a file until the end."""
    aside = file.with_name(f"{file.name}.failures")
    try:
        with _open_text_file(file, "w") as clips, _open_text_file(aside, "w+") as failures:
            clips.write(_format_opening(info, summary, evaluation))
            rows, lost = _JsonArrayWriter(clips), _JsonArrayWriter(failures)

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
    probabilities = {label: round(p, _DECIMALS) for label, p in zip(info.labels, clip.probs, strict=True)}
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
        "zero_shot": [{"label": name, "probability": round(float(p), _DECIMALS)} for name, p in clip.zero_shot],
        "events": [asdict(event) for event in clip.events],
        "windows": None if clip.windows is None else _windows_json(clip.windows, info),
        "attention": {"seconds": clip.attention_times, "weights": clip.attention} if clip.attention else None,
    }


def _windows_json(windows: WindowPredictions, info: ReportInfo) -> dict[str, object]:
    """By column: hours of video are many windows."""
    probs = windows.probs.round(_DECIMALS).T.tolist()  # (K, B)
    return {
        "start": windows.spans[:, 0].round(_DECIMALS).tolist(),
        "end": windows.spans[:, 1].round(_DECIMALS).tolist(),
        "probabilities": dict(zip(info.labels, probs, strict=True)),
    }


def _format_opening(info: ReportInfo, summary: ReportSummary, evaluation: Mapping[str, object] | None) -> str:
    facts = {
        "schema": SCHEMA_VERSION,
        **vars(info),
        "rules": [asdict(rule) for rule in info.rules],
        "summary": {**asdict(summary), "accuracy": summary.accuracy},
        "evaluation": evaluation,
    }
    lines = ",\n".join(f"{_dumps(key)}: {_dumps(value)}" for key, value in facts.items())
    return "{\n" + lines + ',\n"clips": ['


class _JsonArrayWriter:
    """The items of a JSON array, a line each."""

    def __init__(self, handle: IO[str]) -> None:
        self.handle, self.separator = handle, "\n"

    def add(self, item: Mapping[str, object]) -> None:
        self.handle.write(self.separator + _dumps(item))
        self.separator = ",\n"


def _dumps(value: object) -> str:
    return json.dumps(to_json_value(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _open_text_file(file: Path, mode: str) -> IO[str]:
    """Lone surrogates, of names that are not UTF-8, are written as `\\udcXX`, which JSON reads back."""
    return open(file, mode, encoding="utf-8", errors="backslashreplace", newline="")
