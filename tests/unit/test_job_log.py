"""A worker's log as an operator reads it: the last lines, then those that come, and nothing that a terminal would act upon."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from azaion_daemon.logs.tidying import printable
from azaion_daemon.ops.job_log import log_lines


class Following:
    """A reader that goes on until it is told that the job has ended."""

    def __init__(self, log: Path, last: int = 0) -> None:
        self.ended = threading.Event()
        self.looked = threading.Event()
        self.lines: list[str] = []
        self._log, self._last = log, last
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        assert self.looked.wait(20)

    def _follow(self) -> None:
        asked = 0

        def goes_on() -> bool:
            nonlocal asked
            asked += 1
            if asked > 1:  # it has looked at the file in between
                self.looked.set()
            return not self.ended.is_set()

        for line in log_lines(self._log, last=self._last, goes_on=goes_on):
            self.lines.append(line)

    def until(self, *lines: str) -> None:
        deadline = threading.Event()
        for _ in range(1000):
            if self.lines == [*lines]:
                return
            deadline.wait(0.02)
        assert self.lines == [*lines]

    def end(self) -> list[str]:
        self.ended.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def lines(log: Path) -> Iterator[list[str]]:
    made = [f"line {number}" for number in range(20_000)]
    log.write_text("".join(f"{line}\n" for line in made))
    yield made
    log.unlink(missing_ok=True)


@pytest.mark.parametrize("last", [0, 1, 7, 19_999, 20_000, 30_000])
def test_the_last_lines_are_shown(log: Path, lines: list[str], last: int) -> None:
    assert [*log_lines(log, last=last)] == lines[len(lines) - min(last, len(lines)) :]


def test_a_last_line_without_an_end_is_one_too(log: Path) -> None:
    log.write_text("one\ntwo\nthree")
    assert [*log_lines(log, last=2)] == ["two", "three"]
    log.write_text("")
    assert [*log_lines(log, last=2)] == []
    log.unlink()
    assert [*log_lines(log, last=2)] == []


def test_what_comes_is_shown_to_the_last_word(log: Path, lines: list[str]) -> None:
    following = Following(log, last=1)
    with log.open("a") as file:
        file.write("more\nand ")
        file.flush()
        following.until(lines[-1], "more")
        file.write("more\nlast")
    assert following.end() == [lines[-1], "more", "and more", "last"]


def test_a_log_that_comes_late_is_shown_from_its_beginning(log: Path) -> None:
    following = Following(log)
    log.write_text("one\n")
    following.until("one")
    assert following.end() == ["one"]


def test_a_log_that_is_replaced_cut_short_or_gone_for_a_while_is_followed(log: Path) -> None:
    log.write_text("one\n")
    following = Following(log, last=9)
    following.until("one")
    log.rename(log.with_suffix(".1"))
    with log.with_suffix(".1").open("a") as old:
        old.write("two\n")
    following.until("one", "two")
    log.write_text("three\n")
    following.until("one", "two", "three")
    os.truncate(log, 0)
    following.until("one", "two", "three")
    with log.open("a") as file:
        file.write("4\n")
    following.until("one", "two", "three", "4")
    assert following.end() == ["one", "two", "three", "4"]


def test_nothing_reaches_a_terminal_that_it_would_act_upon(log: Path) -> None:
    content = b"\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\tab\there \x08\x7f\x9b1m \xff \xe2\x80\xae\n"
    log.write_bytes(content)
    (line,) = log_lines(log, last=9)
    assert line == "red tab\there \\x08\\x7f\ufffd1m \ufffd \\u202e"
    assert all(one.isprintable() or one == "\t" for one in line)
    assert printable("é 字 \x1b\u2028") == "é 字 \\x1b\\u2028"


def test_of_a_progress_bar_the_last_state_is_shown_and_one_without_end_is_not_kept_in_memory(log: Path) -> None:
    log.write_bytes(b"  1/3\r  2/3\r  3/3\r\nnext\r\n" + b"x" * 200_000)
    shown = [*log_lines(log, last=9)]
    assert shown[:2] == ["  3/3", "next"]
    assert "".join(shown[2:]) == "x" * 200_000
    assert max(map(len, shown)) < 150_000
