"""JSON documents between daemon and worker."""

from typing import Self

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A JSON document between daemon and worker: typed strictly, refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """From JSON; raises pydantic's ValidationError."""
        return cls.model_validate_json(content)

    def render(self) -> bytes:
        """As JSON for people and programs."""
        return self.model_dump_json(indent=1).encode() + b"\n"
