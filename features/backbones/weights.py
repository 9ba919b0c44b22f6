"""A backbone's weights: found or downloaded, and named by a digest of their values that is remembered."""

import logging
import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from features.backbones.base import RANDOM_SEED
from features.backbones.registry import get_backbone
from features.errors import RuntimeEnvironmentError, SettingsError
from features.utils.user_cache import read_note, write_note

WEIGHTS_VARIABLE = "FEATURES_WEIGHTS"

WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

HUGGING_FACE_URL = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/main/(.+)")

FALLBACK_FILES = {
    "model.safetensors": "pytorch_model.bin",
    "open_clip_model.safetensors": "open_clip_pytorch_model.bin",
}
"""What a file is called in repositories that do not have it as safetensors."""


def find_weights(name: str, weights: str) -> Path | None:
    """The file that `auto`, `random` or a path stands for; None for random weights.

    `auto` looks at $FEATURES_WEIGHTS (a file or a folder), then the hub's cache, then downloads. Raises SettingsError
    where a named file is absent or nothing is published, EnvironmentStopped where the download fails.
    """
    get_backbone(name)
    if weights == "random":
        return None
    if weights != "auto":
        return _find_existing(Path(weights), name, source=f"--weights {weights}")
    if variable := os.environ.get(WEIGHTS_VARIABLE):
        return _find_existing(Path(variable), name, source=f"${WEIGHTS_VARIABLE}={variable}")
    return find_published_weights(name, instructions=_explain_how_to_get(name))


def find_published_weights(name: str, *, instructions: str) -> Path:
    """The file in the hub's cache, or downloaded. Raises as `find_weights` does, and says `how` to get it else."""
    url = get_backbone(name).weights_url()
    if not url:
        raise SettingsError(f"no weights for {name}: {instructions}")
    return _find_cached(url) or _download(name, url, instructions)


def weights_digest(name: str, file: Path | None) -> str:
    """sha256 over the names, shapes and float32 values of the network's tensors, whatever file they came from.

    Random weights are named by their recipe instead. A file that was read before and is untouched since is not read
    again. Raises as `load_backbone` does.
    """
    if file is None:
        libraries = [f"torch {version('torch').split('+')[0]}", get_backbone(name).library]
        return ", ".join([f"random, seed {RANDOM_SEED}", *filter(None, libraries)])
    before = _identify_weights(name, file)
    if before and (digest := read_note("digests", before)):
        return digest
    from features.backbones.loading import tensors_digest

    digest = tensors_digest(name, file)
    if before and before == _identify_weights(name, file):
        write_note("digests", before, digest)
    return digest


def _identify_weights(name: str, file: Path) -> dict[str, str]:
    """What a file cannot change its content without changing, and who reads it; empty where it cannot be looked at.

    The time of the last change of its inode is nobody's to set: a file that was swapped and dated back has another.
    """
    try:
        status = file.stat()
    except OSError:
        return {}
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return {"file": str(file.resolve()), "stamp": " ".join(map(str, stamp)), "backbone": name} | find_library_versions(
        name
    )


def _find_existing(path: Path, name: str, *, source: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(
            file for file in path.iterdir() if file.suffix in WEIGHTS_SUFFIXES and _is_named(file.stem, name)
        )
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingsError(
                f"{source} holds several weights of {name} ({', '.join(f.name for f in found)}); name one file"
            )
    raise SettingsError(f"{source}: no weights of {name} there. {_explain_how_to_get(name)}")


def _file_stem(name: str) -> str:
    """What a file of these weights begins with: `timm-resnet10t` for timm:resnet10t."""
    return re.sub(r"[:/]", "-", name)


def _is_named(stem: str, name: str) -> bool:
    """resnet18-f37072fd is of resnet18, resnet18d is not."""
    own = _file_stem(name)
    return stem.startswith(own) and not stem[len(own) :][:1].isalnum()


def _explain_how_to_get(name: str) -> str:
    backbone = get_backbone(name)
    url = backbone.weights_url()
    get = f"Download {url} and pass it" if url else f"{backbone.no_weights_message}; or pass a state dict"
    cache = f"put it into {_hub_file(url).parent}/, or " if url and not HUGGING_FACE_URL.match(url) else ""
    return (
        f"{get} with --weights PATH, or {cache}let ${WEIGHTS_VARIABLE} name the file or its folder (as "
        f"{_file_stem(name)}.safetensors or .pth there); --weights random goes on without pretrained weights"
    )


def _find_cached(url: str) -> Path | None:
    if match := HUGGING_FACE_URL.match(url):
        from huggingface_hub import try_to_load_from_cache

        repository, file = match.groups()
        found = [try_to_load_from_cache(repository, name) for name in (file, FALLBACK_FILES.get(file, file))]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    file = _hub_file(url)
    return file if file.is_file() else None


def _hub_file(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _download(name: str, url: str, instructions: str) -> Path:
    import torch

    try:
        if match := HUGGING_FACE_URL.match(url):
            return _download_from_hugging_face(*match.groups())
        target = _hub_file(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})$", target.stem)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digest.group(1) if digest else None)
        return target
    except Exception as error:  # each library has its own errors for a network that is not there
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise RuntimeEnvironmentError(
            f"no weights for {name}: the download failed ({reason}). {instructions}"
        ) from None


def _download_from_hugging_face(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each of its many attempts
    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError:  # there is no network, which says nothing of the repository
        raise
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, FALLBACK_FILES.get(file, file)))


FAMILY_PACKAGES = {"timm": "timm", "clip": "open_clip_torch"}
"""By whose package a backbone `FAMILY:NAME` is built, besides torchvision."""


def find_library_versions(backbone: str, *others: str) -> dict[str, str]:
    """The versions of what builds and loads a backbone, and of other packages; empty where one is not installed."""
    names = ["torch", "torchvision", *others]
    if own := FAMILY_PACKAGES.get(backbone.partition(":")[0] if ":" in backbone else ""):
        names.append(own)
    return {name: _package_version(name) for name in names}


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
