"""The rules once more, as the table of `azaion_daemon.ingest.rules` tells them and independent of its code."""

from dataclasses import dataclass

from azaion_daemon.stream.events import Status


@dataclass
class Model:
    """One annotation in the table's own words. An image is a number."""

    home: str = "none"
    label: str | None = None
    pending: str | None = None
    image: int | None = None
    conflict: bool = False

    def annotate(self, status: Status, role: int, label: str, image: int | None) -> None:
        validating = role in {20, 40, 1000}
        match status, self.home, validating:
            case Status.EDITED, "deleted", _:
                self.label = label
            case _, "validated", False:
                self.pending = label
            case _, _, True:
                self.home, self.label, self.pending, self.conflict = "validated", label, None, False
            case _, _, False:
                self.home, self.label, self.pending = "seed", label, None
        self.see(image, replaces=status is Status.CREATED and (validating or self.home != "validated"))

    def see(self, image: int | None, *, replaces: bool) -> None:
        if image is None:
            return
        if self.image is None or replaces:
            self.image = image
        self.conflict = self.image != image

    def validate(self) -> None:
        if self.home == "seed":
            self.home = "validated"
        elif self.home == "validated" and self.pending is not None:
            self.label, self.pending = self.pending, None

    def delete(self) -> None:
        if self.home in {"seed", "validated"}:
            self.home = "deleted"
