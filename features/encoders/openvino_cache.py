"""Converted networks, kept from run to run: converting takes seconds, and the result is always the same."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from features.backbones.weights import find_library_versions, weights_digest
from features.encoders.openvino_encoder import row_shape
from features.errors import RuntimeEnvironmentError
from features.spec import FeatureSpec
from features.utils.files import make_scratch_folder
from features.utils.user_cache import (
    find_cache_dir,
    make_entry_name,
    make_private_folder,
    mark_as_used,
    remove_entry,
    remove_oldest_entries,
)

CACHE_KIND = "openvino"

MAX_CACHED_NETWORKS = 8
"""Networks that are kept, the last used ones; each is about as large as its weights."""

NETWORK_FILES = ("backbone.xml", "backbone.bin")

ENTRY_FILE = "entry.json"

CODE_FILES = (
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


def get_openvino_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    """The spec's network for OpenVINO in `folder`, a copy of the one that was kept, or newly converted and then kept.

    Whoever made the spec has checked that the weights are those whose digest it names; without a digest nothing is
    kept. Raises SettingsError where it cannot be converted. A folder for caches that cannot be written changes nothing
    but the time that this takes.
    """
    shelf = find_cache_dir(CACHE_KIND)
    if shelf is None or not spec.weights_digest:
        return _convert_network(spec, weights, folder)
    key = _make_cache_key(spec)
    entry = shelf / make_entry_name(key)
    if _copy_cached(entry, key, folder):
        log.debug("the network for OpenVINO was kept")
        return folder / NETWORK_FILES[0]
    path = _convert_network(spec, weights, folder)
    if weights_digest(spec.backbone, weights) == spec.weights_digest:  # nobody changed the file in the meantime
        _store_network(entry, key, folder)
    return path


def _convert_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    from features.encoders.openvino_convert import convert_network

    path = convert_network(spec, weights, folder)
    log.debug("the network for OpenVINO is converted")
    return path


def _make_cache_key(spec: FeatureSpec) -> dict[str, str]:
    """All that decides the converted network. The precision does not: it is chosen where the network is opened."""
    return {
        "backbone": spec.backbone,
        "weights_digest": spec.weights_digest,
        "preprocessing": spec.preprocessing.model_dump_json(),
        "pooling": spec.pooling,
        "row": str(row_shape(spec)),
        "code": _code_digest(),
        **find_library_versions(spec.backbone, "openvino"),
    }


def _code_digest() -> str:
    """sha256 over our own files that make the network, so that none is kept when they change."""
    digest = hashlib.sha256()
    for name in CODE_FILES:
        digest.update((Path(__file__).parent.parent / name).read_bytes())
    return digest.hexdigest()


def _copy_cached(entry: Path, key: dict[str, str], folder: Path) -> bool:
    """Copies an entry, its bytes checked on the way; one that is damaged, or not of this key, is removed.

    A copy, because another process may remove the entry while workers still open it.
    """
    try:
        tree = json.loads((entry / ENTRY_FILE).read_bytes())
        if tree["key"] != key:
            raise ValueError("another key")
        for name in NETWORK_FILES:
            if _copy_with_digest(entry / name, folder / name) != tree["sha256"][name]:
                raise ValueError("another content")
    except FileNotFoundError:
        return False
    except OSError as error:
        log.debug("a kept network cannot be read: %s", error)
        return False
    except (ValueError, KeyError, TypeError) as error:
        log.debug("a kept network was damaged (%s) and is made anew", error)
        remove_entry(entry)
        return False
    mark_as_used(entry)
    return True


def _store_network(entry: Path, key: dict[str, str], folder: Path) -> None:
    """Keeps the network of `folder`; does nothing where that cannot be. What a crash tears, its checksum tells."""
    try:
        make_private_folder(entry.parent)
        with make_scratch_folder(entry) as scratch:
            digests = {name: _copy_with_digest(folder / name, scratch / name) for name in NETWORK_FILES}
            (scratch / ENTRY_FILE).write_text(json.dumps({"key": key, "sha256": digests}, indent=1))
            remove_entry(entry)
            with suppress(OSError):  # another process has just kept the same
                scratch.rename(entry)
        remove_oldest_entries(entry.parent, MAX_CACHED_NETWORKS)
    except (OSError, RuntimeEnvironmentError) as error:
        log.debug("the converted network cannot be kept: %s", error)


def _copy_with_digest(source: Path, target: Path) -> str:
    """Copies a file and gives the sha256 of what was copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while block := reading.read(2**20):
            digest.update(block)
            writing.write(block)
    return digest.hexdigest()
