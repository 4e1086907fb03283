"""One child process with several pipes: read in bounded memory, watched for stalls, always ended.

Two pipes of one program block each other when their reader waits on one while the other is full. `Child.read`
therefore takes whatever any pipe offers while it waits for the one it was asked for, and reads nothing in between, so
that a child that is ahead of its reader waits.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

_CHUNK = 1 << 18  # bytes that a pipe holds and that are taken from it at once: a whole small picture


class Child:
    """A running program; a context manager that kills it on the way out.

    Args:
        command: called with the numbers of the extra pipes' write ends, returns the program and its arguments.
        extra: pipes beside the standard output.
        writable: whether its standard input is a pipe to write to (else it is empty).
        stall: seconds without a byte on any awaited pipe after which it counts as hung.
    """

    def __init__(
        self,
        command: Callable[[tuple[int, ...]], Sequence[str]],
        *,
        extra: int = 0,
        writable: bool = False,
        stall: float = 60.0,
    ) -> None:
        self._stall = stall
        self._errors = tempfile.TemporaryFile()
        self._seen = 0
        pairs = [os.pipe() for _ in range(extra)]
        ends = tuple(write for _, write in pairs)
        try:
            self._process = subprocess.Popen(
                list(command(ends)),
                stdin=subprocess.PIPE if writable else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=ends,
                bufsize=0,
            )
        except BaseException:
            for read, _ in pairs:
                os.close(read)
            self._errors.close()
            raise
        finally:
            for end in ends:
                os.close(end)
        assert self._process.stdout is not None
        self._pipes = [os.dup(self._process.stdout.fileno()), *(read for read, _ in pairs)]
        self._process.stdout.close()
        self._buffers = [bytearray() for _ in self._pipes]
        self._selector = selectors.DefaultSelector()
        for number, pipe in enumerate(self._pipes):
            with suppress(PermissionError):  # a user with hundreds of large pipes keeps small ones; they only cost time
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
            self._selector.register(pipe, selectors.EVENT_READ, number)
        if self._process.stdin:
            os.set_blocking(self._process.stdin.fileno(), False)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._selector.close()
        for pipe in self._pipes:
            os.close(pipe)
        self._errors.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def read(self, size: int, pipe: int = 0) -> bytes:
        """Return the next `size` bytes of a pipe (0: standard output), fewer only where it ends.

        Raises:
            TimeoutError: nothing arrived for `stall` seconds.
        """
        buffer = self._buffers[pipe]
        while len(buffer) < size and self._open(pipe):
            self._pump()
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    def lines(self, pipe: int = 0) -> Iterator[str]:
        """Yield the lines of a pipe as they come, without their ends."""
        rest = b""
        while data := self.read(1, pipe):
            data += bytes(self._buffers[pipe])
            self._buffers[pipe].clear()
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    def write(self, data: bytes | memoryview) -> None:
        """Write all of the data to its standard input.

        Raises:
            BrokenPipeError: it has ended.
            TimeoutError: it took nothing for `stall` seconds.
        """
        assert self._process.stdin is not None, "opened without writable=True"
        pipe = self._process.stdin.fileno()
        rest = memoryview(data).cast("B")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(self._stall):
                    raise TimeoutError(f"took no data for {self._stall:g} s")
                rest = rest[os.write(pipe, rest) :]

    def finish(self, stall: float | None = None) -> int:
        """Close its standard input, read its pipes to their ends and return its exit status.

        Args:
            stall: seconds, where it may work longer than usual without a word.

        Raises:
            TimeoutError: it neither wrote nor ended for `stall` seconds.
        """
        self._stall = self._stall if stall is None else stall
        if self._process.stdin:
            self._process.stdin.close()
        while self._selector.get_map():
            self._pump()
            for buffer in self._buffers:
                buffer.clear()
        try:
            return self._process.wait(self._stall)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"did not end within {self._stall:g} s") from error

    def errors(self) -> str:
        """Return everything it has written to its standard error so far."""
        return self._tail(0).decode(errors="replace")

    def new_errors(self) -> str:
        """Return what it has written to its standard error since the last call."""
        data = self._tail(self._seen)
        self._seen += len(data)
        return data.decode(errors="replace")

    def _tail(self, start: int) -> bytes:
        file = self._errors.fileno()
        return os.pread(file, os.fstat(file).st_size - start, start)

    def _open(self, pipe: int) -> bool:
        return self._pipes[pipe] in self._selector.get_map()

    def _pump(self) -> None:
        ready = self._selector.select(self._stall)
        if not ready:
            raise TimeoutError(f"wrote nothing for {self._stall:g} s")
        for key, _ in ready:
            data = os.read(key.fd, _CHUNK)
            if data:
                self._buffers[key.data] += data
            else:
                self._selector.unregister(key.fd)
