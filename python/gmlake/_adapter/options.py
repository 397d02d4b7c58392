"""Settings for the allocator, from PYTORCH_CUDA_ALLOC_CONF, GMLAKE_CONF and enable(), the later winning over the earlier.

They are handed on as text of the form of GMLAKE_CONF, which the library parses: it knows the keys and their ranges.
"""

from __future__ import annotations

import os
import sys
from typing import Mapping, MutableMapping


class OptionError(ValueError):
    """A setting that the library refused."""


# What means the same here, under the same key.
_SHARED = {"per_process_memory_fraction", "garbage_collection_threshold"}
_NO_EFFECT = {
    "max_split_size_mb": "blocks of any size may be split, because what is left of them can be stitched to other memory",
    "roundup_power2_divisions": "requests are not rounded up, because free memory of any size can be used",
    "expandable_segments": "memory is stitched in any case",
}
_OF_OTHERS = {  # of the memory of the host, or of no allocator
    "backend",
    "graph_capture_record_stream_reuse",
    "pinned_max_register_threads",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_use_background_threads",
    "pinned_use_cuda_host_register",
    "release_lock_on_cudamalloc",
}


def _write(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def from_torch(text: str) -> tuple[dict[str, str], list[str]]:
    """The settings of PYTORCH_CUDA_ALLOC_CONF that hold here, and a sentence on each that has no effect."""
    settings: dict[str, str] = {}
    notes: list[str] = []
    depth = 0
    item = ""
    for character in text + ",":  # commas inside [..] belong to a value
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character != "," or depth > 0:
            item += character
            continue
        key, _, value = (part.strip() for part in item.partition(":"))
        item = ""
        if key in _SHARED:
            settings[key] = value
        elif key in _NO_EFFECT:
            notes.append(f"{key} has no effect under gmlake: {_NO_EFFECT[key]}")
        elif key == "backend" and value not in ("", "native"):
            notes.append(f"backend:{value} has no effect: gmlake takes its place")
        elif key and key not in _OF_OTHERS:
            notes.append(f"{key} is not known to gmlake and has no effect")
    return settings, notes


def text(options: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> str:
    """All settings as "key:value,key:value"; a key may come twice, and the last holds."""
    of_torch, notes = from_torch(
        environment.get("PYTORCH_ALLOC_CONF") or environment.get("PYTORCH_CUDA_ALLOC_CONF", "")
    )
    for note in notes:
        _tell(note)
    parts = [f"{key}:{value}" for key, value in of_torch.items()]
    own = environment.get("GMLAKE_CONF", "").strip()
    if own:
        parts.append(own)
    for key, value in options.items():
        written = _write(value)
        if any(character in written for character in ",:") or any(character in key for character in ",: "):
            raise ValueError(f"gmlake: {key}={written!r}: a setting must not contain ',' or ':'")
        parts.append(f"{key}:{written}")
    return ",".join(parts)


# Under either name, PyTorch would register every segment with NCCL for as long as the segment is there.
_REGISTRATION = ("TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK", "NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK")


def switch_registration_off(environment: MutableMapping[str, str] = os.environ) -> None:
    """Memory that is stitched moves: what NCCL was told of it would be wrong then. PyTorch itself does the same to
    expandable segments. It asks when the first process group is made; pools that are registered one by one stay so."""
    for name in _REGISTRATION:
        if environment.get(name, "").lower() in ("1", "y", "yes", "t", "true", "on"):
            environment[name] = "0"
            _tell(f"{name} is switched off: stitched memory moves, and so cannot be registered for good")


_told: set[str] = set()


def _tell(note: str) -> None:
    if note not in _told:
        _told.add(note)
        print(f"gmlake: {note}", file=sys.stderr)
