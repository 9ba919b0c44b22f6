"""CLIP's names for clips that the model does not know: labels and prompts in a JSON file, no training at all.

A label's embedding is the mean over its phrases put into all prompts (prompt ensembling, Radford et al. 2021); that of
a clip, the mean over a few evenly spaced frames. Names given so were never measured on anybody's clips: reports mark
them.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av.logging
import cv2
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn

from features.backbones.open_clip_models import clip_backbone
from features.backbones.state_dict import read_state_dict
from features.backbones.weights import WEIGHTS_VARIABLE, find_published_weights, find_weights
from features.encoders.torch_encoder import normalize
from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.spec import ORIGINAL_VIEW, Preprocessing, Sampling
from features.types import Clip
from features.utils.text import suggest_name
from features.utils.worker_pool import run_tasks
from features.video.preprocess import preprocess_frame
from features.video.reader import read_clip
from features.video.sampling import make_row_sampler
from hazard.models.head_ensemble import pick_device

FRAMES_PER_CLIP = 8
"""Evenly spaced frames that are looked at of a clip."""
MAX_NAMES = 5
EXAMPLE_FILE = "configs/zero_shot_example.json"
TOKENIZER_HINT = "choose one with open_clip's own, such as ViT-B-32"

NameProbabilities = tuple[tuple[str, float], ...]
"""Names and probabilities, the likeliest first; empty where nothing is likely enough."""
ClipFrames = NDArray[np.uint8]  # (N, S, S, 3)


class ZeroShotLabels(BaseModel):
    """What --zero-shot LABELS.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "ViT-B-32"
    """A CLIP that open_clip knows."""
    pretrained: str = "laion2b_s34b_b79k"
    """A tag of its weights, or a file of them: a path from where LABELS.json lies."""
    prompts: tuple[str, ...] = ("a photo of {}.", "a frame of a surveillance video of {}.")
    """Sentences in which {} is the place of a phrase."""
    labels: dict[str, tuple[str, ...]]
    """The name that is shown → the phrase, or phrases, by which CLIP may know it."""
    min_probability: float = Field(0.0, ge=0, le=1)
    """Less likely names are not shown."""

    @field_validator("labels", mode="before")
    @classmethod
    def _wrap_single_phrases(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: (phrases,) if isinstance(phrases, str) else phrases for name, phrases in value.items()}

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if len(value) < 2:
            raise ValueError("give two labels or more: CLIP only says which of them is likelier")
        for name, phrases in value.items():
            if not name.strip() or not phrases or not all(phrase.strip() for phrase in phrases):
                raise ValueError(f"label '{name}' needs a name and one phrase or more")
        return value

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value or ("",):
            if prompt.count("{}") != 1:
                raise ValueError(f"each prompt has {{}} once, where the phrase goes; '{prompt}' does not")
        return value


def read_zero_shot_labels(file: Path) -> ZeroShotLabels:
    """The file's content, checked; nothing is loaded. Raises SettingsError in one line."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_reject_duplicate_keys)
    except (OSError, ValueError) as error:
        raise SettingsError(f"zero-shot labels {file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(tree, dict):
        raise SettingsError(
            f"zero-shot labels {file}: expected an object as in {EXAMPLE_FILE}, got {type(tree).__name__}"
        )
    for key in tree:
        if key not in ZeroShotLabels.model_fields:
            raise SettingsError(
                f"zero-shot labels {file}: unknown key '{key}'; {suggest_name(key, ZeroShotLabels.model_fields)}"
            )
    try:
        return ZeroShotLabels.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"zero-shot labels {file}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


@dataclass(frozen=True)
class ZeroShotNamer:
    """CLIP, ready to name clips."""

    labels: ZeroShotLabels
    network: nn.Module
    preprocessing: Preprocessing
    text_embeddings: Tensor
    """(K, E) one embedding of length 1 a label."""

    def name_clip(self, clip: Clip) -> NameProbabilities:
        """What CLIP calls a clip; nothing where it cannot be read.

        It is decoded in this process, which a decoder that hangs or crashes takes with it: for clips that were decoded
        before. `name_clips` is for any.
        """
        frames = _read_frames_or_none(clip, self.preprocessing)
        return () if frames is None else self.name_frames(frames)

    def name_clips(
        self,
        clips: Iterable[Clip],
        *,
        workers: int = 1,
        deadline_seconds: float = 60.0,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Clip, NameProbabilities]]:
        """The same for many clips as they come, decoded in worker processes that may hang or crash."""
        job = _ReadFramesJob(self.preprocessing)
        for clip, frames in run_tasks(
            job, clips, workers=workers, deadline_seconds=deadline_seconds, is_stopped=is_stopped
        ):
            yield clip, self.name_frames(frames) if isinstance(frames, np.ndarray) else ()

    @torch.inference_mode()
    def name_frames(self, frames: ClipFrames) -> NameProbabilities:
        """What CLIP calls frames (N, S, S, 3) of one clip."""
        images = normalize(torch.from_numpy(frames).to(self.text_embeddings.device), self.preprocessing)  # (N, 3, S, S)
        seen = _normalize(self.network.encode_image(images, normalize=True).mean(0))  # type: ignore[operator]  # (E,)
        scale = self.network.logit_scale.exp()  # type: ignore[operator]
        probs = (scale * self.text_embeddings @ seen).double().softmax(0).tolist()  # (K,)
        named = sorted(zip(self.labels.labels, probs, strict=True), key=lambda pair: -pair[1])
        return tuple((name, p) for name, p in named[:MAX_NAMES] if p >= self.labels.min_probability)


def open_zero_shot_namer(file: Path, device: str = "auto") -> ZeroShotNamer:
    """CLIP with the labels of a file.

    Raises SettingsError for a wrong file, an unknown model or absent weights, EnvironmentStopped where they cannot be
    downloaded, ArtefactRefused where they are damaged or another model's.
    """
    labels = read_zero_shot_labels(file)
    if find_spec("open_clip") is None:
        raise SettingsError("--zero-shot needs open_clip; pip install 'hazard-video[clip]'")
    where, given = pick_device(device), file.parent / labels.pretrained
    is_tag = not given.is_file()
    name = f"clip:{labels.model}" + (f"/{labels.pretrained}" if is_tag else "")
    try:
        preprocessing = clip_backbone(name.removeprefix("clip:")).preprocessing
    except SettingsError as error:
        also = f", and there is no file {given}" if is_tag else ""
        raise SettingsError(f"zero-shot labels {file}: {error}{also}") from None
    network = _load_network(labels, _find_clip_weights(name, file) if is_tag else given, is_tag=is_tag).to(where)
    return ZeroShotNamer(labels, network, preprocessing, _embed_labels(labels, network, where))


def read_sampled_frames(
    clip: Clip, preprocessing: Preprocessing, alive: Callable[[], None] = lambda: None
) -> ClipFrames:
    """A few evenly spaced frames (N, S, S, 3). Raises ClipError."""
    pick = make_row_sampler(Sampling(frames=FRAMES_PER_CLIP))
    batch = read_clip(clip, pick, lambda image: preprocess_frame(image, preprocessing), report_alive=alive)
    return batch.data[np.unique(batch.rows[ORIGINAL_VIEW])]


@dataclass(frozen=True)
class _ReadFramesJob:
    """What a worker does: it decodes, nothing else."""

    preprocessing: Preprocessing

    def start(self) -> Callable[[Clip, Callable[[], None]], ClipFrames | None]:
        """Quiet, single-threaded libraries."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return lambda clip, alive: _read_frames_or_none(clip, self.preprocessing, alive)


def _read_frames_or_none(
    clip: Clip, preprocessing: Preprocessing, alive: Callable[[], None] = lambda: None
) -> ClipFrames | None:
    """None where the clip cannot be read, whatever a decoder raises of it: the ledger has said why."""
    try:
        return read_sampled_frames(clip, preprocessing, alive)
    except Exception:
        return None


def _find_clip_weights(name: str, file: Path) -> Path:
    """The weights of a tag: in the folder that $FEATURES_WEIGHTS names, in the hub's cache, or downloaded."""
    folder = Path(os.environ.get(WEIGHTS_VARIABLE) or os.devnull)
    if folder.is_dir():
        try:
            return find_weights(name, str(folder)) or folder
        except SettingsError:  # it holds the backbone's weights and not these
            pass
    try:
        return find_published_weights(
            name, instructions=f"Get the file elsewhere, and let `pretrained` in {file} be its path"
        )
    except (SettingsError, RuntimeEnvironmentError) as error:
        raise type(error)(f"--zero-shot: {error}") from None


def _load_network(labels: ZeroShotLabels, file: Path, *, is_tag: bool) -> nn.Module:
    """The whole of CLIP in eval mode. open_clip's own reader of a state dict is handed safetensors alone."""
    import open_clip

    tag = open_clip.get_pretrained_cfg(labels.model, labels.pretrained) if is_tag else {}
    network = open_clip.create_model(
        labels.model, load_weights=False, pretrained_text=False, force_quick_gelu=bool(tag.get("quick_gelu"))
    )
    state = {key: tensor.contiguous() for key, tensor in read_state_dict(file).items()}
    for key, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"weights {file} refused: '{key}' holds NaN or infinity")
    try:
        with TemporaryDirectory(prefix="zero-shot-") as folder:
            plain = Path(folder) / "state.safetensors"
            if file.suffix != ".safetensors":
                safetensors.torch.save_file({key: tensor.clone() for key, tensor in state.items()}, plain)
            open_clip.load_checkpoint(network, str(file if file.suffix == ".safetensors" else plain))
    except OSError as error:
        raise RuntimeEnvironmentError(f"weights {file} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # strict loading has many ways to say it
        said = " ".join(str(error).split())[:200]
        raise ArtifactError(f"weights {file} refused: they are not of {labels.model} ({said})") from None
    return network.eval().requires_grad_(False)


def _embed_labels(labels: ZeroShotLabels, network: nn.Module, device: torch.device) -> Tensor:
    """(K, E)."""
    tokenizer = _load_tokenizer(labels.model)
    with torch.inference_mode():
        return torch.stack(
            [_embed_phrases(labels.prompts, each, network, tokenizer, device) for each in labels.labels.values()]
        )


def _embed_phrases(
    prompts: Sequence[str], phrases: Sequence[str], network: nn.Module, tokenizer: Any, device: torch.device
) -> Tensor:
    """(E,) the mean over all phrases in all prompts."""
    tokens = tokenizer([prompt.replace("{}", phrase) for prompt in prompts for phrase in phrases]).to(device)
    return _normalize(network.encode_text(tokens, normalize=True).mean(0))  # type: ignore[operator]


def _load_tokenizer(model: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:  # those of other libraries are downloaded, or need one that is not installed
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(f"--zero-shot: no tokenizer of '{model}' ({said}); {TOKENIZER_HINT}") from None


def _normalize(vector: Tensor) -> Tensor:
    return nn.functional.normalize(vector, dim=-1)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys differ: of two of a name the last would win without a word."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise ValueError(f"'{key}' is there twice")
        tree[key] = value
    return tree
