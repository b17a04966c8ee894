"""The current model as the worker meets it: a file that may be missing, damaged, or made for other classes.

An ONNX file is data and may be run, wherever it came from; a .pt is a pickle, and that of the current model is never loaded here.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from azaion_daemon.store.digests import file_digest
from azaion_daemon.training.evaluation import Rival


class RivalError(Exception):
    """The current model cannot be evaluated; the message says why, for an operator."""


@dataclass(frozen=True, slots=True)
class RivalModel:
    """A current model that can be evaluated."""

    onnx: Path
    imgsz: int | None
    """The size that it was exported for, in pixels, where it says so."""
    known: tuple[bool, ...]
    """Which of the candidate's classes it knows: those of the same name in the same place."""


def open_rival(rival: Rival, names: Sequence[str], *, reduced_to: int | None = None) -> RivalModel:
    """Look whether the current model can be compared with a candidate that has these classes.

    `reduced_to` is the side in pixels that the images to compare on were reduced to, where they were.

    Raises:
        RivalError: It cannot.
    """
    try:
        digest = file_digest(rival.onnx)
    except OSError as error:
        raise RivalError(f"{rival.onnx} cannot be read: {error.strerror}") from error
    if digest != rival.sha256:
        raise RivalError(f"{rival.onnx} is damaged: its SHA-256 begins with {digest[:12]} instead of {rival.sha256[:12]}")
    try:
        session = onnxruntime.InferenceSession(str(rival.onnx), providers=["CPUExecutionProvider"])
        described = session.get_modelmeta().custom_metadata_map
        own = ast.literal_eval(described.get("names", "None"))
        imgsz = ast.literal_eval(described.get("imgsz", "None"))
    except MemoryError:
        raise
    except Exception as error:  # the runtime raises types of its own, and metadata may be anything
        raise RivalError(f"{rival.onnx} is no model that can be run: {' '.join(str(error).split())[:300]}") from error
    if isinstance(own, list | tuple):
        own = dict(enumerate(own))
    if not isinstance(own, dict) or sorted(own) != list(range(len(own))) or not own:
        raise RivalError(f"{rival.onnx} does not say which classes it finds")
    if len(own) != len(names):
        raise RivalError(f"it finds {len(own)} classes, and the new model {len(names)}")
    side = max(imgsz) if isinstance(imgsz, list | tuple) and imgsz else None
    if reduced_to is not None and side is not None and side > reduced_to:
        raise RivalError(
            f"it was exported for {side} pixels, and the images were reduced to {reduced_to}: it would be judged on less than it needs. "
            "Raise export.imgsz again, or set dataset.images to linked, for one training"
        )
    return RivalModel(rival.onnx, side, _known([str(own[i]) for i in own], names))


def _known(own: Sequence[str], names: Sequence[str]) -> tuple[bool, ...]:
    for index, (theirs, ours) in enumerate(zip(own, names, strict=True)):
        if theirs != ours and theirs in names:
            raise RivalError(f"its classes are in another order: class {index} was {theirs} and is {ours} now")
    known = tuple(theirs == ours for theirs, ours in zip(own, names, strict=True))
    if not any(known):
        raise RivalError("it finds none of the classes that there are now")
    return known
