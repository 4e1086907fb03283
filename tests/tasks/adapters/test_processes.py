from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tasks.adapters.processes import Child


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_full_pipe_does_not_block_the_other() -> None:
    def command(ends: tuple[int, ...]) -> list[str]:
        return python(
            f"import os; os.write({ends[0]}, b'x' * 0); f = os.fdopen({ends[0]}, 'wb'); "
            "f.write(b'a' * 3_000_000); f.flush(); print('late', flush=True)"
        )

    with Child(command, extra=1, stall=20) as child:
        assert child.read(5) == b"late\n"  # comes after 3 MB on the other pipe, far more than a pipe holds
        assert len(child.read(4_000_000, 1)) == 3_000_000
        assert child.finish() == 0


def test_a_child_ahead_of_its_reader_waits(tmp_path: Path) -> None:
    told = str(tmp_path / "n")
    code = f"import sys\nfor n in range(100):\n sys.stdout.write('x' * 100_000); open({told!r}, 'w').write(str(n))"
    with Child(lambda _: python(code), stall=20) as child:
        child.read(100)
        time.sleep(0.3)
        assert int((tmp_path / "n").read_text() or 0) < 20


def test_pipes_hold_a_picture() -> None:
    code = "import fcntl, time\nwhile fcntl.fcntl(1, fcntl.F_GETPIPE_SZ) < 1 << 18: time.sleep(0.01)\nprint('large')"
    with Child(lambda _: python(code), stall=20) as child:
        assert child.read(5) == b"large"


def test_a_read_past_the_end_gives_what_there_is() -> None:
    with Child(lambda _: python("print('abc', end='')")) as child:
        assert child.read(2) == b"ab"
        assert child.read(10) == b"c"
        assert child.read(10) == b""


def test_lines_come_whole() -> None:
    with Child(lambda _: python("print('é' * 100_000); print(); print('end', end='')")) as child:
        assert [len(line) for line in child.lines()] == [100_000, 0, 3]


def test_a_silent_child_is_given_up_and_killed() -> None:
    with (
        pytest.raises(TimeoutError, match=r"wrote nothing for 0\.2 s"),
        Child(lambda _: ["sleep", "60"], stall=0.2) as child,
    ):
        pid = child.pid
        child.read(1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_may_be_silent_for_longer_at_its_end() -> None:
    code = "import sys, time; sys.stdin.buffer.read(); time.sleep(0.6)"
    with Child(lambda _: python(code), writable=True, stall=0.3) as child:
        child.write(b"x")
        assert child.finish(30.0) == 0


def test_a_child_that_takes_no_input_is_given_up() -> None:
    with (
        Child(lambda _: ["sleep", "60"], writable=True, stall=0.2) as child,
        pytest.raises(TimeoutError, match="took no"),
    ):
        child.write(b"x" * 1_000_000)


def test_input_goes_in_and_errors_come_out_as_they_are_written() -> None:
    code = "import sys; print('one', file=sys.stderr, flush=True); sys.stdin.buffer.read(); sys.exit('two')"
    with Child(lambda _: python(code), writable=True) as child:
        child.write(memoryview(b"x" * 300_000))
        while not (first := child.new_errors()):
            time.sleep(0.01)
        assert first == "one\n"
        assert child.finish() == 1
        assert child.new_errors() == "two\n"
        assert child.errors() == "one\ntwo\n"


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Child(lambda _: python("print(1)"), extra=2, writable=True) as child:
            child.read(1)
        with pytest.raises(FileNotFoundError):
            Child(lambda _: ["/nowhere/ffmpeg"], extra=2)
    assert len(os.listdir("/proc/self/fd")) == before
