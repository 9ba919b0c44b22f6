"""Predictions → predictions.csv, report.json and report.html, each written whole or not at all."""

import json
import math
import os
import unicodedata
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from features.errors import EnvironmentStopped
from hazard.types import ClipPrediction

SCHEMA = 1
STATUSES = ("ok", "partial", "failed")
MAX_BARS = 5
HISTOGRAM_BINS = 20
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # what spreadsheets take for a formula (OWASP, CSV injection)
QUOTED_CHARACTERS = frozenset('",;\t\r\n')  # the semicolon and tab too: other locales split at them
JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are written
FIGURE_NAMES = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "macro_f1": "macro F1", "ece": "ECE"}


@dataclass(frozen=True)
class ReportInfo:
    """What a report says besides its clips: the source, the decision rule and the model's standing.

    `model` is shown and stored as it is. Known keys: `name`, `kind`, `fingerprint` and `groups_known` (bool: whether
    clips of one recording were kept on one side of the split). A mapping with `value` (and `low`, `high`) is an
    evaluation figure, at the top or one level down; any other plain value is listed under its key.
    """

    labels: tuple[str, ...]  # K, the order of ClipPrediction.probs
    positive_label: str  # the label to warn of; "" = none
    threshold: float  # on the probability of the positive label
    model: Mapping[str, object]
    created: str  # ISO 8601 is shown readably, anything else as it is
    source: str

    def __post_init__(self) -> None:
        if self.positive_label and self.positive_label not in self.labels:
            raise ValueError(f"expected a positive_label among {self.labels}, got {self.positive_label!r}")


@dataclass(frozen=True)
class Summary:
    """Counts over a report's clips. The last four are over seen clips whose true label the model knows."""

    clips: int
    looked_at: int
    flagged: int
    partial: int
    failed: int
    with_truth: int
    correct: int
    missed: int
    false_alarms: int

    @property
    def accuracy(self) -> float | None:
        """Share of right labels; None where no true label is known."""
        return self.correct / self.with_truth if self.with_truth else None


def write_report(folder: Path, clips: Sequence[ClipPrediction], info: ReportInfo) -> None:
    """Write predictions.csv, report.json and report.html into `folder`, which is made if it is not there.

    A failed clip is written without label and probabilities, whatever it carries. Raises ValueError where a clip does
    not fit `info.labels`, before anything is written, and EnvironmentStopped where the folder cannot be written to.
    """
    clips = [_checked(clip, info) for clip in clips]
    writers = {"predictions.csv": _write_csv, "report.json": _write_json, "report.html": _write_html}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            with _replacing(folder / name) as handle:
                write(handle, clips, info)
    except OSError as error:
        raise EnvironmentStopped(f"cannot write the report to {folder}: {error.strerror or error}") from error


def summarise(clips: Sequence[ClipPrediction], info: ReportInfo) -> Summary:
    """Count what a report opens with."""
    seen = [clip for clip in clips if clip.status != "failed"]
    known = [clip for clip in seen if is_correct(clip, info) is not None]
    wrong = [clip for clip in known if clip.label != clip.truth]
    return Summary(
        clips=len(clips),
        looked_at=len(seen),
        flagged=sum(clip.label == info.positive_label for clip in seen),
        partial=sum(clip.status == "partial" for clip in seen),
        failed=len(clips) - len(seen),
        with_truth=len(known),
        correct=len(known) - len(wrong),
        missed=sum(clip.truth == info.positive_label for clip in wrong),
        false_alarms=sum(clip.label == info.positive_label for clip in wrong),
    )


def is_correct(clip: ClipPrediction, info: ReportInfo) -> bool | None:
    """Whether the label is the true one; None where the clip failed or its true label is not one of the model's."""
    return clip.label == clip.truth if clip.status != "failed" and clip.truth in info.labels else None


def _checked(clip: ClipPrediction, info: ReportInfo) -> ClipPrediction:
    """The clip as every format may show it: a failed one has a reason and no class, any other fits the labels."""
    if clip.status not in STATUSES:
        raise ValueError(f"{clip.path!r}: expected a status among {STATUSES}, got {clip.status!r}")
    if clip.status == "failed":
        return replace(clip, label="", probs=(), thumbnails=(), reason=clip.reason or "no reason was recorded")
    if clip.label not in info.labels:
        raise ValueError(f"{clip.path!r}: expected a label among {info.labels}, got {clip.label!r}")
    if len(clip.probs) != len(info.labels) or not all(0 <= p <= 1 for p in clip.probs):
        raise ValueError(f"{clip.path!r}: expected {len(info.labels)} probabilities within 0..1, got {clip.probs}")
    if len(clip.thumbnails) != len(clip.thumbnail_times):
        raise ValueError(f"{clip.path!r}: got {len(clip.thumbnails)} thumbnails and {len(clip.thumbnail_times)} times")
    return replace(clip, probs=tuple(map(float, clip.probs)))


def _score(clip: ClipPrediction, info: ReportInfo) -> float:
    """What clips are ranked by: the probability of the positive label, or of the clip's own where there is none."""
    return clip.probs[info.labels.index(info.positive_label or clip.label)]


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the name `path` once it is complete; on any error nothing of it stays.

    Names that are not UTF-8 reach us with lone surrogates; they are written as `\\udcXX`, which JSON reads back.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(handle: IO[str], clips: Sequence[ClipPrediction], info: ReportInfo) -> None:
    handle.write(_csv_line(("path", "status", "label", "probability", *info.labels, "reason")))
    for clip in clips:
        probs = [f"{p:.6f}" for p in clip.probs] or [""] * len(info.labels)
        probability = probs[info.labels.index(clip.label)] if clip.label else ""
        handle.write(_csv_line((clip.path, clip.status, clip.label, probability, *probs, clip.reason)))


def _csv_line(cells: Iterable[str]) -> str:
    """One row. The csv module leaves a lone CR and other locales' separators unquoted, so the quoting is here."""
    safe = ("'" + cell if cell.startswith(FORMULA_STARTS) else cell for cell in cells)
    quoted = ('"' + cell.replace('"', '""') + '"' if QUOTED_CHARACTERS & set(cell) else cell for cell in safe)
    return ",".join(quoted) + "\n"


def _write_json(handle: IO[str], clips: Sequence[ClipPrediction], info: ReportInfo) -> None:
    summary = summarise(clips, info)
    report = {
        "schema": SCHEMA,
        **vars(info),
        "summary": {**asdict(summary), "accuracy": summary.accuracy},
        "clips": [_clip_json(clip, info) for clip in clips if clip.status != "failed"],
        "failures": [{"path": c.path, "status": c.status, "reason": c.reason} for c in clips if c.status == "failed"],
    }
    json.dump(_plain(report), handle, indent=1, ensure_ascii=False, allow_nan=False)


def _clip_json(clip: ClipPrediction, info: ReportInfo) -> dict[str, object]:
    probabilities = {label: round(p, 6) for label, p in zip(info.labels, clip.probs, strict=True)}
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
    }


def _plain(value: object) -> object:
    """`value` in JSON's own types: NumPy numbers unpacked, NaN and infinity as null, what is unknown as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _write_html(handle: IO[str], clips: Sequence[ClipPrediction], info: ReportInfo) -> None:
    seen = sorted((c for c in clips if c.status != "failed"), key=lambda clip: _score(clip, info), reverse=True)
    page = _environment().get_template("report.html.j2")
    context = {
        "info": info,
        "summary": summarise(clips, info),
        "rows": (_row(clip, info) for clip in seen),  # lazily: only one clip's pictures are in base64 at a time
        "failures": [clip for clip in clips if clip.status == "failed"],
        "bins": _histogram(seen, info),
        "seen_labels": [label for label in info.labels if any(clip.label == label for clip in seen)],
        "figures": _figures(info.model),
        "facts": {key: value for key, value in info.model.items() if not isinstance(value, Mapping)},
    }
    handle.writelines(page.generate(context))


def _row(clip: ClipPrediction, info: ReportInfo) -> dict[str, object]:
    """What the page shows of one clip that was looked at."""
    folder, slash, name = clip.path.rpartition("/")
    return {
        "clip": clip,
        "folder": folder + slash,
        "name": name,
        "score": _score(clip, info),
        "correct": is_correct(clip, info),
        "bars": _bars(clip, info),
        "pictures": zip(clip.thumbnail_times, (b64encode(jpeg).decode() for jpeg in clip.thumbnails), strict=True),
    }


def _bars(clip: ClipPrediction, info: ReportInfo) -> list[tuple[str, float]]:
    """The likeliest classes, the positive one always among them."""
    ranked = sorted(zip(info.labels, clip.probs, strict=True), key=lambda bar: bar[1], reverse=True)
    rest = [bar for bar in ranked[MAX_BARS:] if bar[0] == info.positive_label]
    return ranked[: MAX_BARS - len(rest)] + rest


def _histogram(clips: Sequence[ClipPrediction], info: ReportInfo) -> list[tuple[int, int]]:
    """Clips by probability of the positive label, over equal bins of 0..1: (flagged, others) in each."""
    last = HISTOGRAM_BINS - 1
    bins = Counter((min(int(_score(c, info) * HISTOGRAM_BINS), last), c.label == info.positive_label) for c in clips)
    return [(bins[index, True], bins[index, False]) for index in range(HISTOGRAM_BINS)]


def _figures(model: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The evaluation figures in the model's facts, at the top or one level down."""
    nested = [value for value in model.values() if isinstance(value, Mapping)]
    return {key: v for facts in (model, *nested) for key, v in facts.items() if isinstance(v, Mapping) and "value" in v}


def _environment() -> Environment:
    loader = PackageLoader("hazard", "templates")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {
        "readable": readable, "marked": marked, "percent": percent, "clock": clock, "fact": fact, "moment": moment,
        "title_of": lambda key: FIGURE_NAMES.get(key, key.replace("_", " ")),
        "csp_hash": lambda text: "sha256-" + b64encode(sha256(text.encode()).digest()).decode(),
    }  # fmt: skip
    return page


def _is_hidden(character: str) -> bool:
    """Control, direction and other characters that one cannot see, and lone surrogates."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} and character not in JOINERS


def readable(text: str) -> str:
    """`text` with every hidden character written out, such as `\\n` or `\\u202e`."""
    return "".join(c.encode("unicode_escape").decode() if _is_hidden(c) else c for c in text)


def marked(text: str) -> Markup:
    """`readable` for HTML, where what was written out is set apart from a name that really contains a backslash."""
    code = Markup('<span class="code">{}</span>')
    return Markup("").join(code.format(readable(c)) if _is_hidden(c) else escape(c) for c in text)


def percent(share: float) -> str:
    """A share as a whole per cent that never rounds to certainty."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{share:.0%}".replace("%", " %")


def clock(seconds: float) -> str:
    """A duration: `4.8 s`, from a minute on `1:05`, from an hour on `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def fact(value: object) -> str:
    """A model fact as text."""
    plain = _plain(value)
    if plain is None or isinstance(plain, bool):
        return {None: "not known", True: "yes", False: "no"}[plain]
    if isinstance(plain, (int, float)):
        return f"{plain:,}" if isinstance(plain, int) else f"{plain:.3g}"
    return ", ".join(map(fact, plain)) if isinstance(plain, list) else str(plain)


def moment(created: str) -> str:
    """An ISO 8601 time as people write it."""
    try:
        time = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".rstrip()
