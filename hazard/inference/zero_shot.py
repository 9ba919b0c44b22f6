"""Zero-shot names for unknown clips: CLIP chooses among the labels and prompts of a JSON file, without training.

A label's embedding is the mean over its phrases in all prompts (prompt ensembling, Radford et al. 2021). A clip's
embedding is the mean over a few evenly spaced frames. The accuracy of these names was never measured, so reports mark
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
"""Evenly spaced frames of a clip that CLIP embeds."""
MAX_NAMES = 5
EXAMPLE_FILE = "configs/zero_shot_example.json"
TOKENIZER_HINT = "choose a model with a built-in tokenizer, such as ViT-B-32"

NameProbabilities = tuple[tuple[str, float], ...]
"""Names and probabilities, the most probable first; empty if none is probable enough."""
ClipFrames = NDArray[np.uint8]  # (N, S, S, 3)


class ZeroShotLabels(BaseModel):
    """Content of the file of --zero-shot LABELS.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "ViT-B-32"
    """Name of a CLIP model of open_clip."""
    pretrained: str = "laion2b_s34b_b79k"
    """Tag of its weights, or a weights file with a path relative to LABELS.json."""
    prompts: tuple[str, ...] = ("a photo of {}.", "a frame of a surveillance video of {}.")
    """Sentences; {} stands for the phrase."""
    labels: dict[str, tuple[str, ...]]
    """Name shown to people → one or more phrases that describe it to CLIP."""
    min_probability: float = Field(0.0, ge=0, le=1)
    """Names below this probability are not shown."""

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
            raise ValueError("give two labels or more: CLIP only chooses the most probable one of them")
        for name, phrases in value.items():
            if not name.strip() or not phrases or not all(phrase.strip() for phrase in phrases):
                raise ValueError(f"label '{name}' needs a name and at least one phrase")
        return value

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value or ("",):
            if prompt.count("{}") != 1:
                raise ValueError(f"each prompt must contain {{}} exactly once, for the phrase; '{prompt}' does not")
        return value


def read_zero_shot_labels(file: Path) -> ZeroShotLabels:
    """Read and check the file without loading a model. Raises SettingsError with a message of one line."""
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
        location = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"zero-shot labels {file}: {location}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


@dataclass(frozen=True)
class ZeroShotNamer:
    """A loaded CLIP model with the embeddings of the labels."""

    labels: ZeroShotLabels
    network: nn.Module
    preprocessing: Preprocessing
    text_embeddings: Tensor
    """(K, E), one embedding of length 1 per label."""

    def name_clip(self, clip: Clip) -> NameProbabilities:
        """Return CLIP's names for a clip, or () if it cannot be read.

        The clip is decoded in this process, so a decoder that hangs or crashes takes the process with it. Use this
        only for clips that were decoded before, and `name_clips` for all others.
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
        """Yield each clip with its names, or () if it cannot be read, in the order in which they finish.

        Clips are decoded in worker processes, which are replaced if they hang or crash.
        """
        job = _ReadFramesJob(self.preprocessing)
        for clip, frames in run_tasks(
            job, clips, workers=workers, deadline_seconds=deadline_seconds, is_stopped=is_stopped
        ):
            yield clip, self.name_frames(frames) if isinstance(frames, np.ndarray) else ()

    @torch.inference_mode()
    def name_frames(self, frames: ClipFrames) -> NameProbabilities:
        """Return CLIP's names for the frames (N, S, S, 3) of one clip."""
        images = normalize(torch.from_numpy(frames).to(self.text_embeddings.device), self.preprocessing)  # (N, 3, S, S)
        embedding = _normalize(self.network.encode_image(images, normalize=True).mean(0))  # type: ignore[operator]  # (E,)
        scale = self.network.logit_scale.exp()  # type: ignore[operator]
        probs = (scale * self.text_embeddings @ embedding).cpu().double().softmax(0).tolist()  # (K,)
        ranked = sorted(zip(self.labels.labels, probs, strict=True), key=lambda pair: -pair[1])
        return tuple((name, p) for name, p in ranked[:MAX_NAMES] if p >= self.labels.min_probability)


def open_zero_shot_namer(file: Path, device: str = "auto") -> ZeroShotNamer:
    """Load CLIP and embed the labels of a file.

    Raises SettingsError for a wrong file, an unknown model or missing weights, RuntimeEnvironmentError if the weights
    cannot be downloaded, and ArtifactError if they are damaged or belong to another model.
    """
    labels = read_zero_shot_labels(file)
    if find_spec("open_clip") is None:
        raise SettingsError("--zero-shot needs open_clip; pip install open_clip_torch")
    torch_device = pick_device(device)
    weights_file = file.parent / labels.pretrained
    is_tag = not weights_file.is_file()
    name = f"clip:{labels.model}" + (f"/{labels.pretrained}" if is_tag else "")
    try:
        preprocessing = clip_backbone(name.removeprefix("clip:")).preprocessing
    except SettingsError as error:
        hint = f", and the file {weights_file} does not exist" if is_tag else ""
        raise SettingsError(f"zero-shot labels {file}: {error}{hint}") from None
    if is_tag:
        weights_file = _find_clip_weights(name, file)
    network = _load_network(labels, weights_file, is_tag=is_tag).to(torch_device)
    return ZeroShotNamer(labels, network, preprocessing, _embed_labels(labels, network, torch_device))


def read_sampled_frames(
    clip: Clip, preprocessing: Preprocessing, report_alive: Callable[[], None] = lambda: None
) -> ClipFrames:
    """Return up to FRAMES_PER_CLIP evenly spaced frames (N, S, S, 3). Raises ClipError if the clip cannot be read."""
    pick = make_row_sampler(Sampling(frames=FRAMES_PER_CLIP))
    batch = read_clip(clip, pick, lambda image: preprocess_frame(image, preprocessing), report_alive=report_alive)
    return batch.data[np.unique(batch.rows[ORIGINAL_VIEW])]


@dataclass(frozen=True)
class _ReadFramesJob:
    """The task of a worker process: decode a few frames of a clip."""

    preprocessing: Preprocessing

    def start(self) -> Callable[[Clip, Callable[[], None]], ClipFrames | None]:
        """Set up quiet, single-threaded libraries; return the function that reads the frames of a clip."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return lambda clip, report_alive: _read_frames_or_none(clip, self.preprocessing, report_alive)


def _read_frames_or_none(
    clip: Clip, preprocessing: Preprocessing, report_alive: Callable[[], None] = lambda: None
) -> ClipFrames | None:
    """Return the frames, or None if the clip cannot be read. The report already names the reason for such a clip."""
    try:
        return read_sampled_frames(clip, preprocessing, report_alive)
    except Exception:
        return None


def _find_clip_weights(name: str, file: Path) -> Path:
    """Find the weights of a tag: in the folder $FEATURES_WEIGHTS, in the hub's cache, or by download."""
    folder = Path(os.environ.get(WEIGHTS_VARIABLE) or os.devnull)
    if folder.is_dir():
        try:
            return find_weights(name, str(folder)) or folder
        except SettingsError:  # the folder holds weights of the backbone, but not these
            pass
    try:
        return find_published_weights(
            name, instructions=f"Get the file elsewhere, and set `pretrained` in {file} to its path"
        )
    except (SettingsError, RuntimeEnvironmentError) as error:
        raise type(error)(f"--zero-shot: {error}") from None


def _load_network(labels: ZeroShotLabels, file: Path, *, is_tag: bool) -> nn.Module:
    """Load CLIP, both towers, in eval mode. open_clip reads safetensors files only, so that it unpickles nothing.

    Raises ArtifactError for weights that do not fit or are not finite, RuntimeEnvironmentError if they cannot be read.
    """
    import open_clip

    tag = open_clip.get_pretrained_cfg(labels.model, labels.pretrained) if is_tag else {}
    network = open_clip.create_model(
        labels.model, load_weights=False, pretrained_text=False, force_quick_gelu=bool(tag.get("quick_gelu"))
    )
    state = {key: tensor.contiguous() for key, tensor in read_state_dict(file).items()}
    for key, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"weights {file} rejected: '{key}' holds NaN or infinity; download the file again")
    try:
        with TemporaryDirectory(prefix="zero-shot-") as folder:
            converted = Path(folder) / "state.safetensors"
            if file.suffix != ".safetensors":
                safetensors.torch.save_file({key: tensor.clone() for key, tensor in state.items()}, converted)
            open_clip.load_checkpoint(network, str(file if file.suffix == ".safetensors" else converted))
    except OSError as error:
        raise RuntimeEnvironmentError(f"cannot read weights {file}: {error.strerror or error}") from None
    except Exception as error:  # strict loading raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"weights {file} rejected: they do not fit {labels.model} ({reason})") from None
    return network.eval().requires_grad_(False)


def _embed_labels(labels: ZeroShotLabels, network: nn.Module, device: torch.device) -> Tensor:
    """Return the embeddings (K, E) of the labels, each of length 1."""
    tokenizer = _load_tokenizer(labels.model)
    with torch.inference_mode():
        return torch.stack(
            [_embed_phrases(labels.prompts, each, network, tokenizer, device) for each in labels.labels.values()]
        )


def _embed_phrases(
    prompts: Sequence[str], phrases: Sequence[str], network: nn.Module, tokenizer: Any, device: torch.device
) -> Tensor:
    """Return the mean embedding (E,) over all phrases in all prompts, normalized to length 1."""
    tokens = tokenizer([prompt.replace("{}", phrase) for prompt in prompts for phrase in phrases]).to(device)
    return _normalize(network.encode_text(tokens, normalize=True).mean(0))  # type: ignore[operator]


def _load_tokenizer(model: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:  # tokenizers of other libraries need a download or a missing package
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"--zero-shot: cannot load the tokenizer of '{model}' ({reason}); {TOKENIZER_HINT}"
        ) from None


def _normalize(vector: Tensor) -> Tensor:
    return nn.functional.normalize(vector, dim=-1)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object. Raises ValueError for a duplicate key, of which json would silently keep the last."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise ValueError(f"key '{key}' appears twice")
        tree[key] = value
    return tree
