"""The reference of every setting, from where each thing is written once.

`sections.py` has types, ranges and marks; `config.template.yaml` has what a setting is for, its default and its environment variable. The
template's marks and the guide's page `settings.md` are made from both by `python -m azaion_daemon.ops.guide`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from azaion_daemon.errors import ConfigError
from azaion_daemon.sections import Reload
from azaion_daemon.settings import Settings, reload_marks

_LINE = re.compile(
    r"(?:# )?(?P<indent> *)(?:# )?(?P<key>[a-z0-9_]+):(?: +(?P<value>.*?))?(?: +#(?: \[(?P<mark>[a-z_]*)\] ?(?P<meaning>.*))?)?$"
)
_MORE = re.compile(r"[# ]*#   +(\S.*)$")
_MARK = re.compile(r"# \[[a-z_]*\]")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(:-[^}]*)?\}")
_MIB, _KIB = 1 << 20, 1 << 10
_NAMES = {
    "uri": "URL",
    "path": "path",
    "password": "text, secret",
    "date-time": "time with time zone",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
"""What people call the formats and types of a JSON schema."""

MARKS = {
    Reload.LIVE: "takes effect at the next reload (`azaion-daemon reload`, SIGHUP)",
    Reload.NEXT_JOB: "takes effect when the next training job is formed after a reload",
    Reload.RESTART: "takes effect when the daemon is started again",
}


@dataclass(frozen=True)
class Entry:
    """One setting's line in the template."""

    path: str
    value: str
    """Its default, or the variable that it is given by."""
    mark: str
    meaning: str

    @property
    def settings(self) -> dict[str, str]:
        """The dotted paths that the line is about, with their values: several for a mapping in braces."""
        if not self.value.startswith("{") or self.value == "{}":
            return {self.path: self.value}
        return {f"{self.path}.{key}": str(one) for key, one in yaml.safe_load(self.value).items()}


@dataclass(frozen=True)
class Part:
    """One section of the template."""

    name: str
    purpose: str
    entries: list[Entry]


def read_template(template: str) -> list[Part]:
    """The sections of a template, with what their comments say."""
    parts: list[Part] = []
    purpose: list[str] = []
    entries: list[Entry] = []
    for line, path, match in _lines(template):
        if match is not None and "." not in path:
            entries = []
            parts.append(Part(path, " ".join(purpose), entries))
        elif match is not None and match["mark"] is not None:
            entries.append(Entry(path, match["value"] or "", match["mark"], match["meaning"]))
        elif entries and (more := _MORE.match(line)):
            entries[-1] = replace(entries[-1], meaning=f"{entries[-1].meaning} {more[1]}".strip())
        purpose = [*purpose, line[2:]] if match is None and line.startswith("# ") else []
    return parts


def with_marks(template: str) -> str:
    """The template with the mark of each setting as it is in the code; nothing else is touched.

    Raises:
        ConfigError: A line is of no setting that there is, or of several that differ in it.
    """
    marks = reload_marks()
    return "".join(
        (line if match is None or match["mark"] is None else _MARK.sub(f"# [{_mark_of(path, marks)}]", line, count=1)) + "\n"
        for line, path, match in _lines(template)
    )


def _lines(template: str) -> Iterator[tuple[str, str, re.Match[str] | None]]:
    """Every line; of one that names a section or a setting also its dotted path, and its parts."""
    path: list[str] = []
    for line in template.splitlines():
        match = _LINE.match(line)
        if match is not None:
            path[len(match["indent"]) // 2 :] = [match["key"]]
        yield line, ".".join(path), match


def _mark_of(path: str, marks: Mapping[str, Reload]) -> Reload:
    found = {mark for name, mark in marks.items() if name == path or name.startswith(f"{path}.")}
    if len(found) != 1:
        raise ConfigError(f"the template's line of {path} has no mark of its own: the code knows {sorted(found) or 'no such setting'}")
    return found.pop()


def settings_page(template: str) -> str:
    """The page of the guide about every setting, in Markdown."""
    marks = reload_marks()
    kinds = dict(_kinds(Settings.model_json_schema()))
    lines = [
        "# Every setting",
        "",
        "Settings are changed in `config.template.yaml`, what is secret or differs between sites in `.env`. After that render and reload:",
        "",
        "    azaion-daemon config render --env-file .env && azaion-daemon reload --wait",
        "",
        "How a change takes effect:",
        "",
        *(f"- **{mark}** {meaning}" for mark, meaning in MARKS.items()),
        "",
    ]
    for part in read_template(template):
        lines += [f"## {part.name}", "", part.purpose, ""]
        lines += ["| setting | type and range | default | variable | change | what it is |", "|---|---|---|---|---|---|"]
        for entry in part.entries:
            for path, value in entry.settings.items():
                variable = _VARIABLE.fullmatch(value)
                default = f"`{value}`" if variable is None else ("required" if variable[2] is None else "none")
                name = "" if variable is None else f"`{variable[1]}`"
                cells = (f"`{path}`", kinds[path], default, name, str(marks[path]), entry.meaning)
                lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _kinds(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting's dotted path, with its type and range for people."""
    definitions = schema.get("$defs", {})

    def walk(model: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for name, one in model["properties"].items():
            if (reference := one.get("$ref")) is not None:
                yield from walk(definitions[reference.rpartition("/")[2]], f"{prefix}{name}.")
            else:
                yield prefix + name, _kind(one)

    return walk(schema, prefix)


def _kind(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"anyOf": [{"pattern": _}, {"type": "integer"}]}:
            least = schema.get("ge")
            return "size, as bytes or such as 64MiB" + ("" if least is None else f"; {_size(least)} or more")
        case {"anyOf": several}:
            return " or ".join(_kind(one) for one in several)
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"type": "integer" | "number" as kind}:
            return ", ".join([kind, *_range(schema)])
        case _ if (name := schema.get("format", schema.get("type"))) in _NAMES:
            return _NAMES[name]
        case _:
            return "text, not empty" if schema.get("minLength") else "text"


def _range(schema: Mapping[str, Any]) -> Iterator[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        yield f"above {schema['exclusiveMinimum']}"
        if most is not None:
            yield f"at most {most}"
    elif least is not None:
        yield f"{least} or more" if most is None else f"{least} to {most}"
    if "multipleOf" in schema:
        yield f"a multiple of {schema['multipleOf']}"


def _size(count: int) -> str:
    return f"{count // _MIB}MiB" if count >= _MIB else f"{count // _KIB}KiB"
