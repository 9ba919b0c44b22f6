"""Weights of a backbone: found on disk or downloaded, and identified by a cached digest of their values."""

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
"""Environment variable that names a weights file or a folder of them."""

WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

HUGGING_FACE_URL = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/main/(.+)")

FALLBACK_FILES = {
    "model.safetensors": "pytorch_model.bin",
    "open_clip_model.safetensors": "open_clip_pytorch_model.bin",
}
"""Names of the same file in repositories that do not have it as safetensors."""


def find_weights(name: str, weights: str) -> Path | None:
    """Return the file that `auto`, `random` or a path stands for; None for random weights.

    `auto` looks at $FEATURES_WEIGHTS (a file or a folder), then in the hub's cache, and then downloads. Raises
    SettingsError if a named file does not exist or no weights are published, RuntimeEnvironmentError if the download
    fails.
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
    """Return the file from the hub's cache, or download it. Raises like `find_weights`, with `instructions`."""
    url = get_backbone(name).weights_url()
    if not url:
        raise SettingsError(f"no weights of {name}: {instructions}")
    return _find_cached(url) or _download(name, url, instructions)


def weights_digest(name: str, file: Path | None) -> str:
    """Return the sha256 over the names, shapes and float32 values of the network's tensors.

    Random weights are identified by their recipe instead. A file that has not changed since it was last read is not
    read again. Raises ArtifactError like `load_backbone`.
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
    """Return what changes with the content of a file, and the libraries that read it; empty if it cannot be read.

    It includes the change time of the inode, which no program can set: it differs even for a file that was replaced
    and given its old modification time.
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
                f"{source} holds several weights files of {name} ({', '.join(f.name for f in found)}); name one of them"
            )
    raise SettingsError(f"{source}: no weights of {name} found. {_explain_how_to_get(name)}")


def _file_stem(name: str) -> str:
    """Return the start of the file name of a backbone's weights: `timm-resnet10t` for timm:resnet10t."""
    return re.sub(r"[:/]", "-", name)


def _is_named(stem: str, name: str) -> bool:
    """Return whether a file stem belongs to a backbone: resnet18-f37072fd does to resnet18, resnet18d does not."""
    expected = _file_stem(name)
    return stem.startswith(expected) and not stem[len(expected) :][:1].isalnum()


def _explain_how_to_get(name: str) -> str:
    backbone = get_backbone(name)
    url = backbone.weights_url()
    pass_file = f"Download {url} and pass it" if url else f"{backbone.no_weights_message}; or pass a state dict"
    use_cache = f"put it into {_hub_file(url).parent}/, or " if url and not HUGGING_FACE_URL.match(url) else ""
    return (
        f"{pass_file} with --weights PATH, or {use_cache}set ${WEIGHTS_VARIABLE} to the file or its folder (named "
        f"{_file_stem(name)}.safetensors or .pth there); --weights random runs without pretrained weights"
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
    except Exception as error:  # each library raises its own errors if there is no network
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise RuntimeEnvironmentError(f"no weights of {name}: the download failed ({reason}). {instructions}") from None


def _download_from_hugging_face(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs each of its many attempts
    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError:  # no network: the repository may still have the file
        raise
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, FALLBACK_FILES.get(file, file)))


FAMILY_PACKAGES = {"timm": "timm", "clip": "open_clip_torch"}
"""Packages, besides torchvision, that build a backbone `FAMILY:NAME`."""


def find_library_versions(backbone: str, *others: str) -> dict[str, str]:
    """Return the versions of the packages that build and load a backbone, and of `others`; empty if not installed."""
    names = ["torch", "torchvision", *others]
    if package := FAMILY_PACKAGES.get(backbone.partition(":")[0] if ":" in backbone else ""):
        names.append(package)
    return {name: _package_version(name) for name in names}


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
