"""Rows 29 to 34 of the fault table: a model folder that was changed, damaged or forged.

Each test runs `infer.py --model`: exit 4, one line that names the file and what was expected, and no code is run.
"""

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import skops.io
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from features.cache.reduction import Reduction
from hazard.cli.infer import infer
from hazard.data.splits import make_splits
from hazard.models.baselines import get_classifier
from hazard.models.model_folder import TRUSTED_TYPES, open_model, save_model
from hazard.models.settings import TrainSettings
from hazard.training import fit as fit_module
from tests.conftest import CommandResult, Run
from tests.helpers.data.model_info import make_model_info
from tests.helpers.data.sequences import WIDTH, make_frames_spec, make_moving_sequences

DATA = make_moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=1, device="cpu")
REDUCTION = Reduction("select:12", channels=np.arange(WIDTH, dtype=np.int64))
KINDS = {"head": "lstm", "baseline": "logistic_regression", "ensemble": "lstm,logistic_regression"}
Try = Callable[[Path], CommandResult]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model folder per kind, on features of MobileNetV2 with random weights."""
    spec = make_frames_spec().model_copy(update={"reduction": "select:12", "reduction_digest": REDUCTION.digest})
    about: dict[str, Any] = {"feature_spec": spec.model_dump(mode="json"), "fingerprint": spec.fingerprint}
    folders = {}
    for kind, name in KINDS.items():
        settings = QUICK.for_model(kind, name)
        model, _ = fit_module.fit(DATA, make_splits(DATA, folds=3, split=None, seed=0).folds[0], settings)
        folders[kind] = tmp_path_factory.mktemp(kind)
        described = make_model_info(kind, name, settings=settings, weights_file="", **about)
        save_model(folders[kind], info=described, model=model, reduction=REDUCTION)
    return folders


@pytest.fixture
def attempt(tmp_path: Path, run: Run) -> Try:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no video, and never decoded")

    def attempt_it(folder: Path) -> CommandResult:
        ran = run(infer, tmp_path / "clips", "--model", folder, "-o", tmp_path / "report")
        assert "Traceback" not in ran.err
        return ran

    return attempt_it


@pytest.fixture
def copy(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: shutil.copytree(models[kind], tmp_path / "run")


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its digest, as an attacker would."""
    (folder / name).write_bytes(content)
    edit(folder, lambda tree: tree["digests"].update({name: hashlib.sha256(content).hexdigest()}))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads((folder / "model.json").read_text())
    change(tree)
    (folder / "model.json").write_text(json.dumps(tree))


def assert_refused(ran: CommandResult, said: str) -> None:
    assert ran.code == 4, ran.err
    assert re.search(said, ran.err), ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder_is_opened_wherever_it_is_moved(
    kind: str, copy: Callable[[str], Path], models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_model(models[kind]).predict(DATA.x, DATA.mask)
    moved = copy(kind).rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    np.testing.assert_array_equal(open_model(Path()).predict(DATA.x, DATA.mask), expected)


def test_the_command_reads_a_sound_model(copy: Callable[[str], Path], attempt: Try) -> None:
    ran = attempt(copy("ensemble"))
    assert ran.code == 3 and "1 failed" in ran.out  # the file is no video, which only a running job can find out


@pytest.mark.parametrize(
    ("field", "value"),
    [("pooling", "max"), ("weights_digest", "0" * 64), ("reduction_digest", "0" * 64), ("backbone", "resnet18")],
)
def test_row_29_changed_features_are_refused(field: str, value: str, copy: Callable[[str], Path], attempt: Try) -> None:
    edit(folder := copy("head"), lambda tree: tree["feature_spec"].update({field: value}))
    assert_refused(attempt(folder), r"feature_spec was changed: its fingerprint is \w+, not \w+")


def test_row_29_unknown_features_are_named(copy: Callable[[str], Path], attempt: Try) -> None:
    edit(folder := copy("head"), lambda tree: tree["feature_spec"].update(sharpness=2))
    assert_refused(attempt(folder), r"differing in: sharpness")


def test_row_29_other_weights_are_refused(
    copy: Callable[[str], Path], tmp_path: Path, run: Run, models: dict[str, Path]
) -> None:
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2().state_dict(), tmp_path / "w.pth")
    (tmp_path / "a.mp4").write_bytes(b"")
    command = (tmp_path / "a.mp4", "--model", models["head"], "-o", tmp_path / "report", "--weights")
    assert_refused(
        run(infer, *command, tmp_path / "w.pth"), r"other mobilenet_v2 weights: expected random.*, found \w+ in "
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 5}, r"weight_ih_l0: expected float32 \(.*\), got float32 \(.*\)"),
        ({"members": 2}, r"heads\.1\.\S+: expected float32 .*, got nothing"),
    ],
    ids=["size", "members"],
)
def test_row_30_settings_that_do_not_fit_the_weights(
    change: dict[str, object], said: str, copy: Callable[[str], Path], attempt: Try
) -> None:
    edit(folder := copy("head"), lambda tree: tree["settings"].update(change))
    assert_refused(attempt(folder), r"model\.safetensors rejected: .*" + said)


def test_row_30_another_type_of_number(copy: Callable[[str], Path], attempt: Try) -> None:
    folder = copy("head")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    forge(folder, "model.safetensors", safetensors.numpy.save({k: v.astype(np.float64) for k, v in tensors.items()}))
    assert_refused(attempt(folder), r"expected float32 \S+.*, got float64")


def test_row_30_another_reduction(copy: Callable[[str], Path], attempt: Try) -> None:
    folder = copy("head")
    forge(folder, "reduction.safetensors", safetensors.numpy.save({"channels": np.arange(WIDTH) + 9}))
    assert_refused(attempt(folder), r"reduction_digest is \w{12}…, model\.json expects \w{12}…")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_row_31_weights_that_are_no_numbers(kind: str, value: float, copy: Callable[[str], Path], attempt: Try) -> None:
    folder = copy(kind)
    if kind == "baseline":
        model = skops.io.loads((folder / "model.skops").read_bytes(), trusted=TRUSTED_TYPES)
        get_classifier(model).coef_[0, 0] = value
        forge(folder, name := "model.skops", skops.io.dumps(model))
    else:
        name = "model.safetensors" if kind == "head" else "member-00.safetensors"
        tensors = safetensors.numpy.load_file(folder / name)
        next(iter(tensors.values())).flat[0] = value
        forge(folder, name, safetensors.numpy.save(tensors))
    assert_refused(attempt(folder), rf"{name} rejected: .*NaN")


def test_row_31_a_reduction_that_is_no_numbers(copy: Callable[[str], Path], attempt: Try) -> None:
    folder, bad = copy("head"), np.full((WIDTH, 1280), np.nan, np.float32)
    arrays = {"mean": np.zeros(1280, np.float32), "components": bad, "explained_variance": np.ones(WIDTH, np.float32)}
    forge(folder, "reduction.safetensors", safetensors.numpy.save(arrays))
    assert_refused(attempt(folder), "NaN or infinity")


class Canary:
    """An object that creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("head", "model.safetensors"),
        ("baseline", "model.skops"),
        ("ensemble", "member-00.safetensors"),
        ("ensemble", "member-01.skops"),
        ("head", "reduction.safetensors"),
    ],
)
@pytest.mark.parametrize("dump", [pickle.dumps, "torch"], ids=["pickle", "torch"])
def test_row_32_a_malicious_checkpoint_is_never_run(
    kind: str, name: str, dump: Any, copy: Callable[[str], Path], attempt: Try, tmp_path: Path
) -> None:
    folder, canary = copy(kind), tmp_path / "canary"
    if dump == "torch":
        torch.save(Canary(canary), tmp_path / "evil.pth")
        content = (tmp_path / "evil.pth").read_bytes()
    else:
        content = dump(Canary(canary))
    forge(folder, name, content)
    assert_refused(attempt(folder), rf"{re.escape(name)} rejected")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # it does run if unpickled


def test_row_32_a_checkpoint_beside_or_instead_of_ours(
    copy: Callable[[str], Path], attempt: Try, tmp_path: Path
) -> None:
    folder, canary = copy("head"), tmp_path / "canary"
    for name in ("model.pth", "model.pt", "model.pkl", "model.bin", "model.joblib"):
        torch.save(Canary(canary), folder / name)
    assert attempt(folder).code == 3
    (folder / "model.safetensors").unlink()
    assert_refused(attempt(folder), r"model\.safetensors rejected: No such file")
    edit(folder, lambda tree: tree.update(kind="ensemble", name="x", members=[]))
    assert_refused(attempt(folder), "members: an ensemble needs one or more")
    assert not canary.exists()


def test_row_32_malicious_weights_of_the_backbone(models: dict[str, Path], tmp_path: Path, run: Run) -> None:
    canary, evil = tmp_path / "canary", tmp_path / "evil.pth"
    torch.save({"features.0.0.weight": Canary(canary)}, evil)
    (tmp_path / "a.mp4").write_bytes(b"")
    ran = run(infer, tmp_path / "a.mp4", "--model", models["head"], "-o", tmp_path / "report", "--weights", evil)
    assert_refused(ran, r"evil\.pth")
    assert not canary.exists()


def broken(whole: bytes) -> dict[str, bytes]:
    """Return malformed versions of a safetensors file by kind of damage."""
    size = int.from_bytes(whole[:8], "little")
    header, body = whole[8 : 8 + size], whole[8 + size :]
    shifted = re.sub(rb'"data_offsets":\[\d+,', b'"data_offsets":[999999,', header, count=1)
    return {
        "empty": b"",
        "cut": whole[:-10],
        "enormous header": (2**62).to_bytes(8, "little") + whole[8:],
        "no JSON": whole[:8] + b"x" * size + body,
        "offsets outside": len(shifted).to_bytes(8, "little") + shifted + body,
        "more at the end": whole + b"\0" * 8,
    }


@pytest.mark.parametrize("how", broken(safetensors.numpy.save({"a": np.ones(3)})))
def test_row_33_malformed_safetensors(how: str, copy: Callable[[str], Path], attempt: Try) -> None:
    folder = copy("head")
    forge(folder, "model.safetensors", broken((folder / "model.safetensors").read_bytes())[how])
    assert_refused(attempt(folder), r"model\.safetensors rejected")


@pytest.mark.parametrize("kind", ["baseline", "ensemble"])
def test_row_34_a_foreign_type_is_named(kind: str, copy: Callable[[str], Path], attempt: Try) -> None:
    folder = copy(kind)
    foreign = make_pipeline(StandardScaler(), FunctionTransformer(func=shutil.rmtree))
    name = "model.skops" if kind == "baseline" else "member-01.skops"
    forge(folder, name, skops.io.dumps(foreign))
    assert_refused(attempt(folder), rf"{re.escape(name)} rejected: .*shutil\.rmtree")
