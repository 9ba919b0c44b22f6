"""Corrections that a person makes to clips and segments change the labels of a cache without extracting again."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from features.cache.hdf5 import Cache, read_cache, write_cache
from features.cache.tables import make_clip_table, make_failure_table
from features.errors import SettingsError
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.types import add_time_fragment
from hazard.cli.train import train_temporal
from hazard.data.corrections import Correction, apply_corrections, read_corrections
from hazard.data.sequences import load_sequences
from hazard.models.model_folder import open_model
from tests.conftest import Run

STEPS, WIDTH = 6, 12


def cached(file: Path, clips: list[dict[str, object]]) -> Cache:
    """Make a cache of clips with the given columns; fights shake in channels of their own."""
    rng = np.random.default_rng(0)
    rows = []
    for clip in clips:
        facts = {"label": "", "group": "", "split": "", "view": "none", "duration": 2.0, "digest": "d", "status": "ok"}
        facts |= {"length": STEPS, "decoded_share": 1.0, "size_bytes": 1, "mtime_ns": 1}
        rows.append({**facts, **clip})
    spec = FeatureSpec(
        sampling=Sampling(frames=STEPS),
        preprocessing=Preprocessing(),
        backbone="toy",
        weights="random",
        weights_digest="d" * 64,
        pooling="avg",
    )
    blocks = []
    for row in rows:
        x = 0.3 * rng.normal(size=(STEPS, WIDTH))
        x[:, :2] += 1.5 * rng.normal(size=(STEPS, 2)) * ("fight" in str(row["path"]))
        blocks.append((x.astype(np.float16), np.arange(STEPS) / 3))
    with open(file, "w+b") as handle:
        table, none = make_clip_table(rows), make_failure_table([])
        write_cache(handle, blocks, width=WIDTH, spec=spec, reduction=None, clips=table, failures=none)
    return read_cache(file)


def windows(path: str, seconds: float, *, window: float = 2.0, stride: float = 1.0) -> list[dict[str, object]]:
    """Return the parts that inference leaves in a cache."""
    starts = np.arange(0, seconds - window + stride / 2, stride)
    return [{"path": add_time_fragment(path, float(s), float(s) + window), "duration": window} for s in starts]


def corrected(tmp_path: Path, cache: Cache, *rows: str) -> tuple[dict[str, str], Cache]:
    file = tmp_path / "corrections.csv"
    file.write_text("path,label,start,end\n" + "".join(f"{row}\n" for row in rows))
    after, _ = apply_corrections(cache, file)
    return dict(zip(after.clips.path.tolist(), after.clips.label.tolist(), strict=True)), after


def test_a_clip_is_relabelled_and_so_are_its_views(tmp_path: Path) -> None:
    clips = [{"path": p, "label": "fight", "group": "g"} for p in ("a.mp4", "b.mp4")]
    clips.insert(1, clips[0] | {"view": "flip"})
    labels, after = corrected(tmp_path, cached(tmp_path / "c.h5", clips), "a.mp4,noFight,,")
    assert labels == {"a.mp4": "noFight", "b.mp4": "fight"}
    assert after.clips.label.tolist() == ["noFight", "noFight", "fight"]


def test_a_stretch_labels_the_very_part_else_those_of_which_half_lies_inside(tmp_path: Path) -> None:
    cache = cached(tmp_path / "c.h5", [*windows("long.mp4", 8), {"path": "other.mp4", "label": "noFight"}])
    labels, _ = corrected(tmp_path, cache, "long.mp4,fight,2,4")
    assert [path for path, label in labels.items() if label == "fight"] == ["long.mp4#t=2,4"]
    labels, _ = corrected(tmp_path, cache, "long.mp4,fight,1.9,4.1")
    assert [path for path, label in labels.items() if label == "fight"] == [
        f"long.mp4#t={start},{start + 2}" for start in (1, 2, 3)
    ]
    labels, _ = corrected(tmp_path, cache, "long.mp4#t=2,fight,,")
    assert sum(label == "fight" for label in labels.values()) == 6, (
        "the part from 1 s on lies half in the one from 2 s on"
    )
    labels, _ = corrected(tmp_path, cache, '"long.mp4#t=1,7",fight,1.2,2.8')
    assert [path for path, label in labels.items() if label == "fight"] == ["long.mp4#t=2,4"], "times are the part's"


def test_a_stretch_of_a_short_clip_means_the_clip(tmp_path: Path) -> None:
    cache = cached(tmp_path / "c.h5", [{"path": "a.mp4", "label": "fight"}, {"path": "b.mp4", "label": "fight"}])
    assert corrected(tmp_path, cache, "a.mp4,noFight,0,1.9")[0]["a.mp4"] == "noFight"
    with pytest.raises(
        SettingsError, match=r"no cached part of 'a\.mp4' lies at least half within 'a\.mp4' from 0 s to 0\.5"
    ):
        corrected(tmp_path, cache, "a.mp4,noFight,0,0.5")


def test_a_file_that_is_cached_in_windows_alone_is_labelled_whole(tmp_path: Path) -> None:
    cache = cached(tmp_path / "c.h5", windows("long.mp4", 5))
    assert set(corrected(tmp_path, cache, "long.mp4,noFight,,")[0].values()) == {"noFight"}


def test_an_empty_label_leaves_out_and_the_last_word_counts(tmp_path: Path) -> None:
    clips = [{"path": f"{i}.mp4", "label": "fight" if i % 2 else "noFight"} for i in range(6)]
    cache = cached(tmp_path / "c.h5", clips)
    labels, after = corrected(tmp_path, cache, "0.mp4,fight,,", "1.mp4,,,", "0.mp4,noFight,,")
    assert (labels["0.mp4"], labels["1.mp4"]) == ("noFight", "")
    assert "1.mp4" not in load_sequences(after).paths


def test_parts_of_one_file_share_a_group(tmp_path: Path) -> None:
    clips = [*windows("b.mp4", 4), *windows("c.mp4", 4), {"path": "c.mp4", "group": "hall"}, {"path": "a.mp4"}]
    _, after = corrected(tmp_path, cached(tmp_path / "c.h5", clips), "b.mp4,fight,0,4", "c.mp4,noFight,0,4")
    groups = {}
    for path, group in zip(after.clips.path.tolist(), after.clips.group.tolist(), strict=True):
        groups.setdefault(path.partition("#")[0], set()).add(group)
    assert groups == {"a.mp4": {""}, "b.mp4": {"b.mp4"}, "c.mp4": {"hall"}}


def test_new_labels_never_enter_the_test_part_by_themselves(tmp_path: Path) -> None:
    clips = [
        {"path": "t.mp4", "label": "fight", "group": "g1", "split": "test"},
        {"path": "n.mp4", "label": "noFight", "group": "g2", "split": "train"},
        *({**part, "group": "g1"} for part in windows("more.mp4", 3)),
        *windows("new.mp4", 3),
    ]
    _, after = corrected(tmp_path, cached(tmp_path / "c.h5", clips), "more.mp4,fight,0,3", "new.mp4,noFight,0,3")
    splits = dict(zip(after.clips.path.tolist(), after.clips.split.tolist(), strict=True))
    assert {split for path, split in splits.items() if path.startswith("more")} == {"test"}, "its group is there"
    assert {split for path, split in splits.items() if path.startswith("new")} == {"train"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("fights/A.mp4,fight,,", r"no clip 'fights/A\.mp4'; did you mean 'x/A\.mp4'"),
        ("zzz,fight,,", "no clip 'zzz'; paths look like"),
        ("b.mp4,figth,,", "'b.mp4': the cache has no label 'figth'; did you mean 'fight'"),
        ("b.mp4,fight,3,1", "row 2, column 'end': 1 is not after the start, 3"),
        ("b.mp4,fight,soon,", "row 2, column 'start': 'soon' is not a number"),
        (",fight,,", "row 2, column 'path': empty"),
        ("b.mp4,fight", "row 2: expected 4 columns"),
    ],
)
def test_what_is_not_there_is_named(row: str, said: str, tmp_path: Path) -> None:
    clips = [{"path": "x/A.mp4", "label": "fight"}, {"path": "b.mp4", "label": "noFight"}]
    cache = cached(tmp_path / "c.h5", clips)
    with pytest.raises(SettingsError, match=said):
        corrected(tmp_path, cache, row)
    assert corrected(tmp_path, cache, "b.mp4,somersault,,")[0]["b.mp4"] == "somersault", "a new label is welcome"


def test_spreadsheets_formulas_are_read_as_the_names_they_are(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("\ufeffpath,label,start,end,note\n'=a.mp4,fight,,,ours\n'tis.mp4,'-x,1,2.5,\n")
    assert read_corrections(file) == [Correction("=a.mp4", "fight"), Correction("'tis.mp4", "-x", 1.0, 2.5)]
    file.write_text("file,label\na,b\n")
    with pytest.raises(SettingsError, match="no column 'path', found: file, label"):
        read_corrections(file)
    with pytest.raises(SettingsError, match=r"absent\.csv cannot be read: No such file"):
        read_corrections(tmp_path / "absent.csv")


def test_training_takes_the_corrections_and_says_so(tmp_path: Path, run: Run) -> None:
    clips = [{"path": f"{k}/{i}.mp4", "label": k, "group": f"{i % 6}"} for k in ("fight", "noFight") for i in range(12)]
    clips[0]["label"] = "noFight"
    cached(tmp_path / "c.h5", [*clips, *windows("long/fight.mp4", 6)])
    with open(tmp_path / "corrections.csv", "w", newline="") as file:
        rows = [("path", "label", "start", "end"), ("fight/0.mp4", "fight", "", ""), ("noFight/1.mp4", "", "", "")]
        csv.writer(file).writerows([*rows, ("long/fight.mp4", "fight", "0", "6")])
    given = (tmp_path / "c.h5", "-o", tmp_path / "model", "--baseline", "ridge", "--folds", 3)
    ran = run(train_temporal, *given, "--labels", tmp_path / "corrections.csv")
    assert ran.code == 0, ran.err
    assert "6 labels from corrections.csv (6 changed, 1 clip left out)" in ran.out
    info = open_model(tmp_path / "model").info
    assert "6 labels from corrections.csv" in info.split
    assert info.settings.labels_file == tmp_path / "corrections.csv"
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion"]["counts"])) == 24 - 1 + 5
    with open(tmp_path / "model" / "predictions.csv", newline="") as file:
        folds = {row["path"]: row["fold"] for row in csv.DictReader(file)}
    assert len({fold for path, fold in folds.items() if path.startswith("long")}) == 1, "one video, one side"
    ran = run(train_temporal, *given, "--labels", tmp_path / "absent.csv")
    assert (ran.code, "absent.csv cannot be read" in ran.err) == (2, True)
