"""Settings of both stages chained: section `infer` of a settings file."""

from pathlib import Path

from pydantic import Field

from features.config import RunSettings


class InferSettings(RunSettings):
    """Section `infer` of a settings file."""

    weights: str = "auto"
    """`auto` or the path of the backbone's weights."""
    label_map: Path | None = None
    """As in section `extract`: the classes of labelled clips, by the names that the model knows."""
    cache: Path | None = None
    """Features that are there already are taken from this cache, and new ones are added to it."""
    window_seconds: float | None = Field(None, gt=0)
    """Longer videos are cut in windows of this length; by default of what the model was trained on."""
    stride_seconds: float | None = Field(None, gt=0)
    """From one window's start to the next; half a window by default."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Probability from which the positive label is given and an event begins; the model's own by default."""
    false_alarms_per_hour: float | None = Field(None, gt=0)
    """Instead of a threshold: the one that gave at most so many on the clips that the model was evaluated with."""
    leave: float | None = Field(None, ge=0, le=1)
    """An event goes on down to this probability; four fifths of the threshold by default."""
    min_seconds: float = Field(0.0, ge=0)
    """Shorter events are dropped."""
    merge_seconds: float | None = Field(None, ge=0)
    """Events no further apart are one; one stride by default."""
    cooldown_seconds: float = Field(0.0, ge=0)
    """After an event none begins for so long."""
    event_labels: tuple[str, ...] = ()
    """What events are found of: by default the positive label, with three labels or more each that sounds alarming."""
    unknown_share: float = Field(0.02, ge=0, lt=1)
    """About so many of clips like those of training may be called unknown; 0 never calls one so."""
    zero_shot: Path | None = None
    """A JSON file of labels and prompts by which CLIP names unknown clips."""
    truth: Path | None = None
    """A CSV of true events (path, start, end, label) that the report is measured against."""
    tolerance_seconds: float = Field(0.0, ge=0)
    """An event that misses a true one by no more has found it all the same."""
    annotate: bool = False
    """Writes each video with what was seen drawn in."""
    highlights: bool = False
    """Writes one video of all events."""
    parquet: bool = False
    """Writes the tables as Parquet too."""
