"""report.json: all facts of a report, one clip per line, in the format of `schemas/report.schema.json`."""

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
    """Return the published schema of report.json (JSON Schema 2020-12)."""
    return json.loads(files("hazard.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))


@contextmanager
def open_json_report(
    file: Path, info: ReportInfo, summary: ReportSummary, evaluation: Mapping[str, object] | None
) -> Iterator[Callable[[ClipPrediction], None]]:
    """Open report.json; give a function that writes one clip.

    Failed clips go to a temporary file and are copied to the end.
    """
    failures_file = file.with_name(f"{file.name}.failures")
    try:
        with _open_text_file(file, "w") as clips, _open_text_file(failures_file, "w+") as failures:
            clips.write(_format_opening(info, summary, evaluation))
            clip_array, failure_array = _JsonArrayWriter(clips), _JsonArrayWriter(failures)

            def add(clip: ClipPrediction) -> None:
                if clip.status == "failed":
                    failure_array.add({"path": clip.path, "status": clip.status, "reason": clip.reason})
                else:
                    clip_array.add(clip_json(clip, info))

            yield add
            clips.write('\n],\n"failures": [')
            failures.seek(0)
            clips.writelines(failures)
            clips.write("\n]\n}\n")
    finally:
        failures_file.unlink(missing_ok=True)


def clip_json(clip: ClipPrediction, info: ReportInfo) -> dict[str, object]:
    """Return the entry of an analysed clip in report.json."""
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
    """Return the windows by column, which is compact for hours of video."""
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
        "rules": [rule.to_json() for rule in info.rules],
        "summary": {**asdict(summary), "accuracy": summary.accuracy},
        "evaluation": evaluation,
    }
    lines = ",\n".join(f"{_dumps(key)}: {_dumps(value)}" for key, value in facts.items())
    return "{\n" + lines + ',\n"clips": ['


class _JsonArrayWriter:
    """A writer of the items of a JSON array, one per line."""

    def __init__(self, handle: IO[str]) -> None:
        self.handle, self.separator = handle, "\n"

    def add(self, item: Mapping[str, object]) -> None:
        self.handle.write(self.separator + _dumps(item))
        self.separator = ",\n"


def _dumps(value: object) -> str:
    return json.dumps(to_json_value(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _open_text_file(file: Path, mode: str) -> IO[str]:
    """Open a file so that lone surrogates, from names that are not UTF-8, become `\\udcXX`, which JSON reads back."""
    return open(file, mode, encoding="utf-8", errors="backslashreplace", newline="")
