"""Every path under the root directory, in one place."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from azaion_daemon.sections import DirectorySettings


class Home(StrEnum):
    """The one place where an annotation lives."""

    SEED = "seed"
    VALIDATED = "validated"
    DELETED = "deleted"


@dataclass(frozen=True)
class Layout:
    """The paths of one root directory. All of it must be one filesystem, since files move by rename."""

    root: Path
    data: str = "data"
    data_seed: str = "data-seed"
    data_deleted: str = "data_deleted"

    @classmethod
    def of(cls, directories: DirectorySettings) -> "Layout":
        """The layout that a configuration names."""
        return cls(directories.root, directories.data, directories.data_seed, directories.data_deleted)

    @cached_property
    def _homes(self) -> dict[Home, Path]:
        return {
            Home.SEED: self.root / self.data_seed,
            Home.VALIDATED: self.root / self.data,
            Home.DELETED: self.root / self.data_deleted,
        }

    def images(self, home: Home) -> Path:
        """The directory of a home's images."""
        return self._homes[home] / "images"

    def labels(self, home: Home) -> Path:
        """The directory of a home's label files."""
        return self._homes[home] / "labels"

    def image(self, home: Home, name: str, extension: str) -> Path:
        """An annotation's image; the extension comes without its dot."""
        return self._homes[home] / "images" / f"{name}.{extension}"

    def label(self, home: Home, name: str) -> Path:
        """An annotation's label file."""
        return self._homes[home] / "labels" / f"{name}.txt"

    @property
    def classes(self) -> Path:
        """classes.json: the class names, kept by the operator."""
        return self.root / "classes.json"

    @property
    def offset(self) -> Path:
        """The position of the service that was here before, for `init` to import."""
        return self.root / "offset.yaml"

    @property
    def datasets(self) -> Path:
        """Snapshots, one directory each."""
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        """The current model (azaion.pt, azaion.onnx), base models, and one directory a training run."""
        return self.root / "models"

    @property
    def onnx(self) -> Path:
        """The current model as consumers run it."""
        return self.models / "azaion.onnx"

    @property
    def pt(self) -> Path:
        """The current model as it can be trained on."""
        return self.models / "azaion.pt"

    @property
    def quarantine(self) -> Path:
        """Messages that could not be applied."""
        return self.root / "quarantine"

    @property
    def quarantined_tree(self) -> Path:
        """Files that had no place in the annotation tree, as {home}/{images,labels}/."""
        return self.quarantine / "tree"

    @property
    def state(self) -> Path:
        """What the daemon keeps for itself. Made by `init` only, so its absence means: not mounted, or not ours."""
        return self.root / "state"

    @property
    def ledger(self) -> Path:
        """The SQLite database."""
        return self.state / "ledger.db"

    @property
    def root_id(self) -> Path:
        """The identity that `init` gave this root."""
        return self.state / "root.json"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the process that may write."""
        return self.state / "daemon.lock"

    @property
    def incoming(self) -> Path:
        """Image bytes that are durable but not placed yet, named by stream position."""
        return self.state / "incoming"

    @property
    def resized(self) -> Path:
        """Reduced images, which datasets link to. Made when it is needed."""
        return self.state / "resized"

    @property
    def jobs(self) -> Path:
        """Training jobs, one directory each."""
        return self.state / "jobs"

    @property
    def gpu_locks(self) -> Path:
        """Locked (flock), a file a GPU, by the worker that has it."""
        return self.state / "gpus"

    @property
    def evaluations(self) -> Path:
        """Figures of models on test images, so that the current model is not evaluated with every candidate. Made when it is needed."""
        return self.state / "evaluations"

    @property
    def requests(self) -> Path:
        """What commands ask of the daemon."""
        return self.state / "requests"

    @property
    def status(self) -> Path:
        """The daemon's state for other processes, replaced every second."""
        return self.state / "status.json"

    @property
    def hardware(self) -> Path:
        """The hardware string, kept once computed."""
        return self.state / "hardware.txt"

    @property
    def signing_key(self) -> Path:
        """The private key that manifests are signed with, unless the operator names a file."""
        return self.state / "signing.pem"

    @property
    def signing_public_key(self) -> Path:
        """Its public key. Where this is, there must be the private one."""
        return self.state / "signing.pub.pem"

    @property
    def refused_login(self) -> Path:
        """That the platform refused the credentials, so that no later start tries them again."""
        return self.state / "login-refused.json"

    @property
    def uploads(self) -> Path:
        """Multipart uploads under way; not there while there are none."""
        return self.state / "uploads.json"

    @property
    def releases(self) -> Path:
        """What is known of releases, a file each, and what an attempt works with."""
        return self.state / "releases"

    def directories(self) -> list[Path]:
        """Every directory that `init` makes."""
        homes = [directory for home in Home for directory in (self.images(home), self.labels(home))]
        inner = [self.incoming, self.jobs, self.gpu_locks, self.requests, self.releases]
        return [*homes, self.datasets, self.models, self.quarantine, self.state, *inner]
