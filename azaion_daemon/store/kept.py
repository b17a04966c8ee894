"""Models that are kept, each in a directory of its own, and the current one, which is a copy of one of them."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from azaion_daemon.errors import OperatorError
from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import replacing, storage
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Model


def check_kept(model: Model, *, way_out: str) -> None:
    """See that a kept model is what the ledger says. Blocking.

    Args:
        model: As the ledger knows it.
        way_out: What to do when its file is gone or was changed, as a sentence.

    Raises:
        OperatorError: It is gone, damaged, or cannot be read.
    """
    onnx = Path(model.path)
    try:
        digest = file_digest(onnx)
    except (FileNotFoundError, NotADirectoryError):
        raise OperatorError(f"{onnx}, the model {model.sha256[:12]}, is not kept any more (retention.models_keep). {way_out}") from None
    except OSError as error:
        raise OperatorError(f"{onnx} cannot be read: {error.strerror}. Check its owner and mode.") from error
    if digest != model.sha256:
        raise OperatorError(
            f"{onnx} is damaged: its SHA-256 begins with {digest[:12]}, that of the model with {model.sha256[:12]}. {way_out}"
        )


def put_in_place(onnx: Path, layout: Layout) -> None:
    """Copy a kept model to where the current one is. Its result is as of now: by that a lost ledger is made anew. Blocking.

    Raises:
        StorageError: The disk failed, or is full; then the current model is as it was.
    """
    trainable = onnx.with_name(layout.pt.name)
    with storage("putting a model in its place"):
        with ExitStack() as replaced:  # neither has its name before there is space for both
            for source, target in ((onnx, layout.onnx), (trainable, layout.pt)):
                if source.is_file():
                    copy = replaced.enter_context(replacing(target))
                    with source.open("rb") as content:
                        shutil.copyfileobj(content, copy)
                    copy.flush()
        if not trainable.is_file():
            layout.pt.unlink(missing_ok=True)  # one that was taken over without; another model's must not pass for its
        if (result := onnx.with_name("result.json")).is_file():
            os.utime(result)
