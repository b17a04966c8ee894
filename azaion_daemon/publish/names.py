"""What a release's objects are called. The current ones are replaced by each release, the versioned ones stay."""

from dataclasses import dataclass
from pathlib import PurePath

MANIFEST_SUFFIX = ".manifest.json"


@dataclass(frozen=True)
class PartNames:
    """The names of a release's two parts."""

    big: str
    small: str

    @classmethod
    def current(cls, name: str) -> "PartNames":
        """Those that consumers ask for."""
        return cls(f"{name}.big", f"{name}.small")

    @classmethod
    def versioned(cls, name: str, serial: int) -> "PartNames":
        """Those that stay: `azaion.onnx` becomes `azaion-7.onnx.big` and `.small`."""
        return cls.current(versioned_name(name, serial))


def versioned_name(name: str, serial: int) -> str:
    """A model's name in one release: `azaion.onnx` becomes `azaion-7.onnx`."""
    path = PurePath(name)
    return f"{path.stem}-{serial}{path.suffix}"
