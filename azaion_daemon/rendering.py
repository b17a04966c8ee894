"""From the environment to config.yaml: `.env` and `config.template.yaml` in, a validated configuration out.

The template is YAML in which a whole value may be `${NAME}` or, when it may be missing, `${NAME:-default}`. Values are placed as data: the
span of the placeholder's scalar is replaced by a quoted scalar, so that no character in a password can become syntax. Comments stay.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from dotenv.parser import parse_stream

from azaion_daemon.errors import ConfigError
from azaion_daemon.settings import FIRST_LINE, LAST_LINE, parse_settings, yaml_problem
from azaion_daemon.store.durable import replace_durably

CONFIG_MODE = 0o640
"""Secrets are in it: the owner writes, the group reads."""

_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAME_IN_SHELL = re.compile(
    r"""(?x) [ \t\n]* (?:export[ \t]+)? [A-Za-z_][A-Za-z0-9_]* =
    (?: (?: ' [^'\\\0]* '                        # single quotes: literal in both
          | " (?: [^"\\$`\0] | \\["\\] )* "      # double quotes, without what a shell expands
          | (?!\#) [^\s'"\\$`&|;<>()*?\[\]~{}!\x00-\x1f\x7f]+   # a plain word
        ) (?: [ \t]+ \#[^\n]* )? )? [ \t]* \n*"""
)
_BLANK_IN_SHELL = re.compile(r"(?: [ \t]* (?: \#[^\n]* )? \n? )*", re.VERBOSE)


def read_environment(env_file: Path | None, process: Mapping[str, str]) -> dict[str, str]:
    """The variables of a .env file, overridden by those of the process that have a value.

    Raises:
        ConfigError: The file cannot be read, or a line means something else to a shell, which would also read it.
    """
    values = dict(_read_dotenv(env_file)) if env_file is not None else {}
    return values | {name: value for name, value in process.items() if value}


def _read_dotenv(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Copy .env.example to it and fill it in, or name another with --env-file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    faults = [
        f"line {number}: a shell would read the carriage return differently; end lines as Unix does"
        for number, line in enumerate(text.split("\n"), 1)
        if "\r" in line
    ]
    for binding in parse_stream(io.StringIO(text)) if not faults else ():
        line = binding.original.line + binding.original.string[: -len(binding.original.string.lstrip()) or None].count("\n")
        if binding.key is not None and binding.value is not None and not binding.error and _NAME.fullmatch(binding.key):
            if not _SAME_IN_SHELL.fullmatch(binding.original.string):
                faults.append(f"line {line}: a shell would read the value of {binding.key} differently; put it in single quotes")
            yield binding.key, binding.value
        elif binding.key is not None or binding.error or not _BLANK_IN_SHELL.fullmatch(binding.original.string):
            faults.append(f"line {line} is not NAME=value")
    if faults:
        raise ConfigError(
            f"{path}:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\n(A value with both ' and $ or ` can only come from the environment of the process.)"
        )


def render(template: str, environment: Mapping[str, str], *, source: str) -> str:
    """The text of a configuration: the template with every placeholder's value in it.

    Raises:
        ConfigError: Variables are missing or empty, all of them named; or the template is no YAML, or has a placeholder inside a text.
    """
    try:
        tree = yaml.compose(template, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{where} is not valid YAML: {yaml_problem(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    pieces: list[str] = []
    missing: list[str] = []
    end = 0
    for node in sorted(_placeholders(tree, source), key=lambda node: node.start_mark.index):
        match = _PLACEHOLDER.fullmatch(node.value)
        if match is None:
            raise ConfigError(
                f"{source}, line {node.start_mark.line + 1}: ${{NAME}} must be a whole value, without quotes or text around it"
            )
        name, default = match.groups()
        value = environment.get(name) or default
        if value is None:
            missing.append(name)
            continue
        if not _is_text(value):
            raise ConfigError(f"the value of {name} is not valid UTF-8. Set it again, in a terminal that speaks UTF-8.")
        pieces += [template[end : node.start_mark.index], _scalar(value)]
        end = node.end_mark.index
    if missing:
        raise ConfigError(f"missing or empty: {', '.join(dict.fromkeys(missing))}. Set them in .env or in the environment.")
    return "".join([*pieces, template[end:]])


def _placeholders(node: yaml.Node | None, source: str) -> Iterator[yaml.ScalarNode]:
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                yield from _placeholders(key, source)
                yield from _placeholders(value, source)
        case yaml.SequenceNode():
            for item in node.value:
                yield from _placeholders(item, source)
        case yaml.ScalarNode() if "${" in node.value:
            yield node


def _is_text(value: str) -> bool:
    """Whether it can be written to a file: bytes of the environment that are no UTF-8 come as lone surrogates."""
    return value.isascii() or value == value.encode(errors="ignore").decode()


def _scalar(value: str) -> str:
    """A text as one line of YAML that can be nothing else."""
    return yaml.safe_dump(value, default_style='"', width=float("inf"), allow_unicode=True).removesuffix("\n")


def render_file(*, env_file: Path | None, template: Path, output: Path, process: Mapping[str, str] | None = None) -> None:
    """Render a template file to a configuration file, which is replaced only by a valid one, and says where it ends.

    Raises:
        ConfigError: As in `render`, or the outcome is not a valid configuration. Nothing is written then.
    """
    try:
        text = template.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the template {template} cannot be read: {error}") from error
    environment = read_environment(env_file, os.environ if process is None else process)
    rendered = render(text, environment, source=str(template))
    parse_settings(rendered, source=f"{template}, rendered,")
    whole = "\n".join([FIRST_LINE, rendered.removesuffix("\n"), LAST_LINE, ""])
    try:
        replace_durably(output, whole.encode(), mode=CONFIG_MODE)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}") from error
