"""Cache of converted OpenVINO networks: converting takes seconds, and the result is always the same."""

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
"""Most recently used networks that are cached. Each is about as large as its weights."""

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
"""Source files, below `features/`, that decide what a converted network computes."""

log = logging.getLogger(__name__)


def get_openvino_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    """Write the OpenVINO network of a spec into `folder` and return its path.

    It is copied from the cache, or converted and then cached. The caller has checked that the weights match the digest
    of the spec; without a digest nothing is cached. If the cache folder cannot be written, the network is converted
    each time. Raises SettingsError if it cannot be converted.
    """
    cache_dir = find_cache_dir(CACHE_KIND)
    if cache_dir is None or not spec.weights_digest:
        return _convert_network(spec, weights, folder)
    key = _make_cache_key(spec)
    entry = cache_dir / make_entry_name(key)
    if _copy_cached(entry, key, folder):
        log.debug("the network for OpenVINO was cached")
        return folder / NETWORK_FILES[0]
    path = _convert_network(spec, weights, folder)
    if weights_digest(spec.backbone, weights) == spec.weights_digest:  # the file has not changed meanwhile
        _store_network(entry, key, folder)
    return path


def _convert_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    from features.encoders.openvino_convert import convert_network

    path = convert_network(spec, weights, folder)
    log.debug("the network for OpenVINO was converted")
    return path


def _make_cache_key(spec: FeatureSpec) -> dict[str, str]:
    """Return everything that decides the converted network. The precision does not: it is chosen on opening."""
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
    """Return the sha256 over CODE_FILES, so that a change of the code invalidates the cache."""
    digest = hashlib.sha256()
    for name in CODE_FILES:
        digest.update((Path(__file__).parent.parent / name).read_bytes())
    return digest.hexdigest()


def _copy_cached(entry: Path, key: dict[str, str], folder: Path) -> bool:
    """Copy an entry to `folder`, check its bytes, and return whether that worked.

    An entry that is damaged or has another key is removed. The network is copied because another process may remove
    the entry while workers are still opening it.
    """
    try:
        tree = json.loads((entry / ENTRY_FILE).read_bytes())
        if tree["key"] != key:
            raise ValueError("the key differs")
        for name in NETWORK_FILES:
            if _copy_with_digest(entry / name, folder / name) != tree["sha256"][name]:
                raise ValueError("the content differs")
    except FileNotFoundError:
        return False
    except OSError as error:
        log.debug("a cached network cannot be read: %s", error)
        return False
    except (ValueError, KeyError, TypeError) as error:
        log.debug("a cached network is damaged (%s) and is converted again", error)
        remove_entry(entry)
        return False
    mark_as_used(entry)
    return True


def _store_network(entry: Path, key: dict[str, str], folder: Path) -> None:
    """Copy the network in `folder` to the cache, if possible. Checksums reveal an entry that a crash damaged."""
    try:
        make_private_folder(entry.parent)
        with make_scratch_folder(entry) as scratch:
            digests = {name: _copy_with_digest(folder / name, scratch / name) for name in NETWORK_FILES}
            (scratch / ENTRY_FILE).write_text(json.dumps({"key": key, "sha256": digests}, indent=1))
            remove_entry(entry)
            with suppress(OSError):  # another process has just stored the same entry
                scratch.rename(entry)
        remove_oldest_entries(entry.parent, MAX_CACHED_NETWORKS)
    except (OSError, RuntimeEnvironmentError) as error:
        log.debug("the converted network cannot be cached: %s", error)


def _copy_with_digest(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 of the copied bytes."""
    digest = hashlib.sha256()
    with open(source, "rb") as source_file, open(target, "wb") as target_file:
        while block := source_file.read(2**20):
            digest.update(block)
            target_file.write(block)
    return digest.hexdigest()
