"""From the environment to config.yaml: values are data, faults are named at once, and what a shell would read differently is refused."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from azaion_daemon.errors import ConfigError
from azaion_daemon.rendering import read_environment, render, render_file
from azaion_daemon.settings import LAST_LINE, load_settings, parse_settings

ROOT = Path(__file__).parents[2]
TEMPLATE, EXAMPLE = ROOT / "config.template.yaml", ROOT / ".env.example"
REQUIRED = [
    "AZAION_API_URL", "AZAION_API_EMAIL", "AZAION_API_PASSWORD", "RABBITMQ_HOST", "RABBITMQ_PORT", "RABBITMQ_USER", "RABBITMQ_PASSWORD",
    "RABBITMQ_QUEUE_NAME", "AZAION_ROOT_DIR", "AZAION_DATA_DIR", "AZAION_DATA_SEED_DIR", "AZAION_DATA_DELETED_DIR", "TRAINING_MODEL",
    "TRAINING_EPOCHS", "TRAINING_BATCH_SIZE", "TRAINING_IMGSZ", "TRAINING_SAVE_PERIOD", "TRAINING_WORKERS", "EXPORT_ONNX_IMGSZ",
]  # fmt: skip
AWKWARD = "p#ss: \"w'%{}$HOME"


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(EXAMPLE.read_text())
    return path


def read(path: Path, text: str) -> dict[str, str]:
    path.write_bytes(text.encode())
    return read_environment(path, {})


def rendered(tmp_path: Path, env: Path, **process: str) -> Path:
    output = tmp_path / "config.yaml"
    render_file(env_file=env, template=TEMPLATE, output=output, process=process)
    return output


def by_shell(path: Path, name: str) -> str | None:
    """What a POSIX shell makes of a variable of the file; None when it fails to read it."""
    script = f'unset {name}; set -a; . "$1" >/dev/null 2>&1; printf "%s=" "${{{name}-}}"'
    result = subprocess.run(
        ["/bin/sh", "-c", script, "sh", path],
        capture_output=True,
        check=False,
        env={"HOME": "/home/somebody", "PATH": ""},
        stdin=subprocess.DEVNULL,
    )
    return result.stdout.decode(errors="surrogateescape").removesuffix("=") if result.returncode == 0 else None


# .env files


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A=b", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=b=c", "b=c"),
        ("A='b c'", "b c"),
        ("A='b # c'", "b # c"),
        ("A='$HOME `x`'", "$HOME `x`"),
        ('A="b c"', "b c"),
        ('A="it\'s"', "it's"),
        ('A="a \\" \\\\ b"', 'a " \\ b'),
        ("A='b\nc'", "b\nc"),
        ("A=b\nA=c", "c"),
        ("# A=x\nA=b\n# A=y", "b"),
        ("A='b' # 'c'", "b"),
        ("A=пароль", "пароль"),
        ("A=https://api.azaion.com", "https://api.azaion.com"),
        ("A=a@b.c,d:e/f+g^h-i_j%k", "a@b.c,d:e/f+g^h-i_j%k"),
    ],
)
def test_a_line_that_a_shell_reads_the_same_is_taken(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path / ".env", line + "\n")["A"] == value
    assert by_shell(tmp_path / ".env", "A") == value


@pytest.mark.parametrize(
    "line",
    [
        "A=$HOME",
        "A=${HOME}",
        'A="$HOME"',
        "A=`id`",
        'A="`id`"',
        "A=$(id)",
        "A=b c",
        "A=it's",
        'A=a"b',
        "A='it'\\''s'",
        "A='it\\'s'",
        "A=a\\nb",
        'A="a\\nb"',
        "A=b;c",
        "A=b&",
        "A=b|c",
        "A=(b)",
        "A=~/x",
        "A=x:~/y",
        "A=~",
        "A=b>c",
        "A = b",
        "A= b",
        "A= # comment",
        "A=\t# comment",
        "A =b",
        "A",
        "export A",
        "A: b",
        "A='b",
        'A="b',
        "A='b'c",
        "1A=b",
        "A-B=c",
        "A.B=c",
        "'A'=b",
        "\ufeffA=b",
        "\u00a0# comment",
        "A=b\u00a0",
        "A=b\x0c",
        "A=b\r",
        "A='b'\u2003",
        "A=b\x0b # c",
    ],
)
def test_a_line_that_a_shell_reads_differently_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"(?m)line 2\b"):
        read(tmp_path / ".env", f"# first\n{line}\n")


@given(st.text(st.sampled_from("Ab =#'\"\\$`~:!{}*?[;&|<>()%^\t\n\r\v\f\u00a0\u2028\u0085é-"), max_size=10))
@settings(max_examples=250, deadline=None)
def test_whatever_is_taken_is_what_a_shell_reads(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.env"
    try:
        taken = read(path, f"A={value}\n")
    except ConfigError:
        return
    assert taken["A"] == by_shell(path, "A")


def test_all_faults_of_a_file_are_named_at_once_without_their_values(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / ".env", "A=$secret1\nB=ok\n\nC=secret2 more\nD\n")
    message = str(caught.value)
    assert [int(number) for number in re.findall(r"line (\d+)", message)] == [1, 4, 5]
    assert "secret" not in message


def test_a_file_that_is_missing_or_not_text_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        read_environment(tmp_path / "nowhere", {})
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_environment(tmp_path / ".env", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_environment(tmp_path, {})


def test_the_process_goes_before_the_file_where_it_has_a_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    assert read_environment(tmp_path / ".env", {"A": "process", "B": "", "D": "new"}) == {
        "A": "process",
        "B": "file",
        "C": "file",
        "D": "new",
    }


# Placing values


@pytest.mark.parametrize(
    "value",
    [
        AWKWARD, "yes", "null", "~", "1e3", "0x10", "2026-01-01", "- a", "a: b", "[a]", "{a: b}", "&a", "*a", "!!int 5", "|", ">", "%TAG",
        "@a", "`a`", "'", '"', "\\", "\\n", "a\nb: c", "\ttab", " blank ", "#", "# x", "a #b", "${B}", "${B:-x}", "$", "\u0085", "\u2028",
        "\ufeff", "\x07", "\x7f", "пароль 🔑", "a" * 5000, "...", "---", "? a", "<<", "=",
    ],
)  # fmt: skip
@pytest.mark.parametrize("template", ["k: ${A}", "k: ${A}  # comment", "k:\n- {l: 1}\n- ${A}", "- ${A}\n- ${A}", "k:\n  ${A}\nl: 2"])
def test_a_value_is_placed_as_data_whatever_it_is(template: str, value: str) -> None:
    document = yaml.safe_load(render(template, {"A": value}, source="t"))
    expected = yaml.safe_load(template.replace("${A}", "PLACE"))
    assert document == place(expected, value)


def place(node: object, value: str) -> object:
    match node:
        case dict():
            return {key: place(one, value) for key, one in node.items()}
        case list():
            return [place(one, value) for one in node]
        case _:
            return value if node == "PLACE" else node


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_value_survives(value: str) -> None:
    assert yaml.safe_load(render("k: ${A}", {"A": value}, source="t")) == {"k": value}


def test_comments_and_layout_stay() -> None:
    template = "# above\nk: ${A}   # beside\n\n# below\nl: 5\n"
    assert render(template, {"A": "v"}, source="t") == '# above\nk: "v"   # beside\n\n# below\nl: 5\n'


def test_a_placeholder_in_a_comment_is_no_placeholder() -> None:
    assert render("# ${NAME} stands for a value\nk: 1\n", {}, source="t") == "# ${NAME} stands for a value\nk: 1\n"


def test_a_value_is_not_looked_at_again() -> None:
    assert yaml.safe_load(render("a: ${A}\nb: ${B}", {"A": "${B}", "B": "${A}"}, source="t")) == {"a": "${B}", "b": "${A}"}


@pytest.mark.parametrize(
    "template", ["k: x${A}", "k: {l: ${A}}", "k: [${A}, 1]", 'k: "${A} y"', "k: ${a}", "k: ${A", "k: |\n  ${A}\n  x", "k: ${A:+x}"]
)
def test_a_placeholder_that_is_not_a_whole_value_is_an_error(template: str) -> None:
    with pytest.raises(ConfigError, match=r"t(, line 1| is not|, line \d+)"):
        render(template, {"A": "v"}, source="t")


def test_an_optional_placeholder_has_its_default() -> None:
    assert yaml.safe_load(render("a: ${A:-}\nb: ${B:-dflt}", {"B": ""}, source="t")) == {"a": "", "b": "dflt"}


@pytest.mark.parametrize("template", ["k: [", "k: 'x", "k: \x07", "\tk: v", "k: v\nk", "a: b: c"])
def test_a_template_that_is_no_yaml_is_an_error_with_its_name(template: str) -> None:
    with pytest.raises(ConfigError, match=r"^t"):
        render(template, {}, source="t")


# The whole


def test_the_example_renders_to_a_valid_configuration(tmp_path: Path, env: Path) -> None:
    settings_ = load_settings(rendered(tmp_path, env))
    assert (settings_.stream.port, settings_.training.epochs, settings_.training.imgsz) == (5552, 120, 1280)
    assert settings_.publish.model_key is None


def test_an_awkward_password_survives_the_whole_way(tmp_path: Path, env: Path) -> None:
    output = rendered(tmp_path, env, AZAION_API_PASSWORD=AWKWARD, RABBITMQ_PASSWORD=AWKWARD[::-1], AZAION_MODEL_KEY="~")
    loaded = load_settings(output)
    assert loaded.api.password.get_secret_value() == AWKWARD
    assert loaded.stream.password.get_secret_value() == AWKWARD[::-1]
    assert loaded.publish.model_key is not None
    assert loaded.publish.model_key.get_secret_value() == "~"


def test_a_password_with_every_quote_survives_from_the_file(tmp_path: Path, env: Path) -> None:
    env.write_text(env.read_text().replace("AZAION_API_PASSWORD=changeme", "AZAION_API_PASSWORD='p#ss: \"w'"))
    assert load_settings(rendered(tmp_path, env)).api.password.get_secret_value() == 'p#ss: "w'


def test_all_missing_and_empty_variables_are_named_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RABBITMQ_HOST=\nRABBITMQ_PORT=5552\n")
    with pytest.raises(ConfigError) as caught:
        rendered(tmp_path, tmp_path / ".env", TRAINING_MODEL="")
    named = set(re.findall(r"[A-Z]{3,}_[A-Z_]+", str(caught.value)))
    assert named == set(REQUIRED) - {"RABBITMQ_PORT"}
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_variable_is_missed_by_its_name(tmp_path: Path, env: Path, name: str) -> None:
    env.write_text(re.sub(rf"(?m)^{name}=.*$", "", env.read_text()))
    with pytest.raises(ConfigError, match=rf"missing or empty: {name}\."):
        rendered(tmp_path, env)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RABBITMQ_PORT", "70000"), ("TRAINING_IMGSZ", "1000"), ("AZAION_ROOT_DIR", "relative"), ("AZAION_DATA_DIR", "a/b"),
     ("TRAINING_EPOCHS", "many"), ("AZAION_DATA_SEED_DIR", "data"), ("AZAION_API_URL", "not a url"), ("AZAION_API_PASSWORD", "a\udcffb")],
)  # fmt: skip
def test_an_invalid_outcome_leaves_the_old_file_untouched_and_tells_no_value(tmp_path: Path, env: Path, name: str, value: str) -> None:
    output = tmp_path / "config.yaml"
    output.write_text("old")
    with pytest.raises(ConfigError) as caught:
        rendered(tmp_path, env, **{name: value, "RABBITMQ_PASSWORD": "s3cret-word"})
    assert "s3cret-word" not in str(caught.value)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "config.yaml"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("existing", [None, 0o666, 0o600])
def test_the_configuration_is_readable_by_owner_and_group_only(tmp_path: Path, env: Path, umask: int, existing: int | None) -> None:
    if existing is not None:
        (tmp_path / "config.yaml").touch()
        (tmp_path / "config.yaml").chmod(existing)
    before = os.umask(umask)
    try:
        output = rendered(tmp_path, env)
    finally:
        os.umask(before)
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_a_rendered_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, env: Path) -> None:
    text = rendered(tmp_path, env, AZAION_MODEL_KEY="key").read_text()
    assert parse_settings(text, source="c").publish.model_key is not None
    valid_but_for_its_end = 0
    for end in (match.end() for match in re.finditer("\n", text.removesuffix("\n"))):
        with pytest.raises(ConfigError) as refused:
            parse_settings(text[:end], source="c")
        valid_but_for_its_end += "is cut short" in str(refused.value) and "publish" not in text[:end]
    assert valid_but_for_its_end  # so optional sections cannot get lost


def test_what_is_written_by_hand_needs_no_last_line_and_what_is_added_does_not_hurt(tmp_path: Path, env: Path) -> None:
    text = rendered(tmp_path, env).read_text()
    assert parse_settings(text.partition("\n")[2].replace(LAST_LINE, ""), source="c") == parse_settings(text, source="c")
    assert parse_settings(text + "log: {level: debug}\n", source="c").log.level == "debug"


def test_a_template_with_a_byte_order_mark_or_without_a_last_line_break_is_one(tmp_path: Path, env: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.read_text().rstrip(), encoding="utf-8-sig")
    render_file(env_file=env, template=template, output=tmp_path / "config.yaml", process={})
    assert load_settings(tmp_path / "config.yaml").stream.port == 5552


def test_a_directory_that_is_missing_is_an_error_with_the_path(tmp_path: Path, env: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/config\.yaml cannot be written"):
        render_file(env_file=env, template=TEMPLATE, output=tmp_path / "nowhere" / "config.yaml", process={})
    with pytest.raises(ConfigError, match="nothing cannot be read"):
        render_file(env_file=env, template=tmp_path / "nothing", output=tmp_path / "config.yaml", process={})


def test_without_a_file_the_process_alone_counts(tmp_path: Path, env: Path) -> None:
    values = read_environment(env, {})
    render_file(env_file=None, template=TEMPLATE, output=tmp_path / "config.yaml", process=values)
    assert load_settings(tmp_path / "config.yaml").stream.host == "127.0.0.1"


# The files in the repository


def test_the_required_variables_are_these_nineteen() -> None:
    assert len(REQUIRED) == 19
    with pytest.raises(ConfigError) as caught:
        render(TEMPLATE.read_text(), {}, source="t")
    assert set(re.findall(r"[A-Z]{3,}_[A-Z_]+", str(caught.value))) == set(REQUIRED)


def test_the_example_holds_exactly_the_templates_variables() -> None:
    named = re.findall(r"\$\{([A-Z0-9_]+)(?::-[^}]*)?\}", "\n".join(line.split("#")[0] for line in TEMPLATE.read_text().splitlines()))
    assert sorted(read_environment(EXAMPLE, {})) == sorted(named)


def test_the_examples_values_are_the_documented_ones() -> None:
    values = read_environment(EXAMPLE, {})
    documented = [
        "https://api.azaion.com", "*", "*", "127.0.0.1", "5552", "azaion_receiver", "changeme", "azaion-annotations", "/azaion", "data",
        "data-seed", "data_deleted", "yolo26m.pt", "120", "11", "1280", "1", "24", "1280",
    ]  # fmt: skip
    assert [expected if expected == "*" else values[name] for name, expected in zip(REQUIRED, documented, strict=True)] == documented
