"""What a capture keeps of a kernel's files: small facts, never the files.

Schema ``tdxreclaim.kernel/1``.  A capture is untrusted: what is not of the
form is refused whole.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.evidence import Origin, printable
from tdxreclaim.facts.images.parts import (
    TELLING,
    Configuration,
    Images,
    KernelFiles,
    KernelPart,
    Module,
)

SCHEMA = "tdxreclaim.kernel/1"


def write_record(files: KernelFiles) -> str | None:
    """Return *files* as JSON, ``None`` if there is nothing to keep."""
    if not (files.running or files.newest or files.livepatches):
        return None
    document = {
        "schema": SCHEMA,
        "running": _images(files.running),
        "newest": _images(files.newest),
        "livepatches": files.livepatches,
    }
    return json.dumps(document, indent=2) + "\n"


def _images(images: Images | None) -> dict[str, Any] | None:
    if images is None or not images.parts:
        return None
    return {"loaded": images.loaded, "parts": [_part(part) for part in images.parts]}


def _part(part: KernelPart) -> dict[str, Any]:
    shown: dict[str, Any] = {"path": part.path, "release": part.release}
    match part.content:
        case Module() as module:
            # The build id would tell one build from another, and is not asked again.
            shown["module"] = {
                name: getattr(module, name) for name in _MODULE_FIELDS if name != "build_id"
            }
        case Configuration() as config:
            shown["configuration"] = {"tdx_host": config.tdx_host, "base": config.base}
        case _:
            raise AssertionError(part)  # no other part is looked for on a host
    return shown


_MODULE_FIELDS = tuple(field.name for field in fields(Module))


def read_record(text: str, name: str) -> KernelFiles:
    """Return what the record in *text* keeps.

    Raises:
        MalformedInputError: it is not one.

    """
    try:
        document = _ours(json.loads(text))
        return KernelFiles(
            _read_images(document["running"]),
            _read_images(document["newest"]),
            _count(document["livepatches"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedInputError(name, f"not a record of a kernel's files ({SCHEMA})") from error


def _ours(document: Any) -> dict[str, Any]:  # noqa: ANN401  (JSON)
    if not isinstance(document, dict) or document["schema"] != SCHEMA:
        raise ValueError(document)
    return document


def _read_images(value: Any) -> Images | None:  # noqa: ANN401  (JSON)
    if value is None:
        return None
    parts = tuple(_read_part(part) for part in value["parts"][:_MOST_PARTS])
    return Images(parts, (), Origin.CAPTURED, loaded=_flag(value["loaded"]))


_MOST_PARTS = 8


def _read_part(value: Any) -> KernelPart:  # noqa: ANN401
    content: Module | Configuration
    if "module" in value:
        module = value["module"]
        content = Module(
            tdh_imports=_count(module["tdh_imports"]),
            resets=tuple(name for name in TELLING if name in module["resets"]),
            clears=_count(module["clears"]),
            seamcalls=_sure(module["seamcalls"]),
            reclaims=_sure(module["reclaims"]),
        )
    else:
        config = value["configuration"]
        content = Configuration(_flag(config["tdx_host"]), _text(config["base"]))
    return KernelPart(printable(str(value["path"])), _text(value["release"]), content)


def _count(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError(value)
    return value


def _flag(value: Any) -> bool | None:  # noqa: ANN401
    return None if value is None else _sure(value)


def _sure(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _text(value: Any) -> str | None:  # noqa: ANN401
    if value is not None and not isinstance(value, str):
        raise TypeError(value)
    return None if value is None else printable(value)
