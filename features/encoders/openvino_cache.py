"""Converted networks, kept from run to run: converting takes seconds, and the result is always the same."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from features.backbones.weights import libraries_of, weights_digest
from features.encoders.openvino_encoder import row_shape
from features.errors import EnvironmentStopped
from features.spec import FeatureSpec
from features.utils.files import scratch_folder
from features.utils.user_cache import entry_name, keep_newest, kept_folder, make_private, remove, touch

KIND = "openvino"

MOST = 8
"""Networks that are kept, the last used ones; each is about as large as its weights."""

NETWORK = ("backbone.xml", "backbone.bin")

ENTRY = "entry.json"

CODE = (
    "backbones/registry.py",
    "backbones/open_clip_models.py",
    "backbones/loading.py",
    "backbones/base.py",
    "encoders/openvino_convert.py",
    "backbones/state_dict.py",
    "backbones/timm_models.py",
    "encoders/torch_encoder.py",
)
"""Files of ours that decide what a converted network computes."""

log = logging.getLogger(__name__)


def kept_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    """The spec's network for OpenVINO in `folder`, a copy of the one that was kept, or newly converted and then kept.

    Whoever made the spec has checked that the weights are those whose digest it names; without a digest nothing is
    kept. Raises SettingsError where it cannot be converted. A folder for caches that cannot be written changes nothing
    but the time that this takes.
    """
    shelf = kept_folder(KIND)
    if shelf is None or not spec.weights_digest:
        return _convert(spec, weights, folder)
    key = _key(spec)
    entry = shelf / entry_name(key)
    if _take(entry, key, folder):
        log.debug("the network for OpenVINO was kept")
        return folder / NETWORK[0]
    path = _convert(spec, weights, folder)
    if weights_digest(spec.backbone, weights) == spec.weights_digest:  # nobody changed the file in the meantime
        _keep(entry, key, folder)
    return path


def _convert(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    from features.encoders.openvino_convert import convert

    path = convert(spec, weights, folder)
    log.debug("the network for OpenVINO is converted")
    return path


def _key(spec: FeatureSpec) -> dict[str, str]:
    """All that decides the converted network. The precision does not: it is chosen where the network is opened."""
    return {
        "backbone": spec.backbone,
        "weights_digest": spec.weights_digest,
        "preprocessing": spec.preprocessing.model_dump_json(),
        "pooling": spec.pooling,
        "row": str(row_shape(spec)),
        "code": _code_digest(),
        **libraries_of(spec.backbone, "openvino"),
    }


def _code_digest() -> str:
    """sha256 over our own files that make the network, so that none is kept when they change."""
    digest = hashlib.sha256()
    for name in CODE:
        digest.update((Path(__file__).parent.parent / name).read_bytes())
    return digest.hexdigest()


def _take(entry: Path, key: dict[str, str], folder: Path) -> bool:
    """Copies an entry, its bytes checked on the way; one that is damaged, or not of this key, is removed.

    A copy, because another process may remove the entry while workers still open it.
    """
    try:
        tree = json.loads((entry / ENTRY).read_bytes())
        if tree["key"] != key:
            raise ValueError("another key")
        for name in NETWORK:
            if _copy(entry / name, folder / name) != tree["sha256"][name]:
                raise ValueError("another content")
    except FileNotFoundError:
        return False
    except OSError as error:
        log.debug("a kept network cannot be read: %s", error)
        return False
    except (ValueError, KeyError, TypeError) as error:
        log.debug("a kept network was damaged (%s) and is made anew", error)
        remove(entry)
        return False
    touch(entry)
    return True


def _keep(entry: Path, key: dict[str, str], folder: Path) -> None:
    """Keeps the network of `folder`; does nothing where that cannot be. What a crash tears, its checksum tells."""
    try:
        make_private(entry.parent)
        with scratch_folder(entry) as scratch:
            digests = {name: _copy(folder / name, scratch / name) for name in NETWORK}
            (scratch / ENTRY).write_text(json.dumps({"key": key, "sha256": digests}, indent=1))
            remove(entry)
            with suppress(OSError):  # another process has just kept the same
                scratch.rename(entry)
        keep_newest(entry.parent, MOST)
    except (OSError, EnvironmentStopped) as error:
        log.debug("the converted network cannot be kept: %s", error)


def _copy(source: Path, target: Path) -> str:
    """Copies a file and gives the sha256 of what was copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while block := reading.read(2**20):
            digest.update(block)
            writing.write(block)
    return digest.hexdigest()
