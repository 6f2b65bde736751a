"""Processes that parse and decode files, so that a file that crashes, hangs or swells a decoder harms nothing else.

A process is started when it is needed, serves one thread at a time, and stays for the next call. All of them end with
this process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from vaeguard.data.channel import BUFFER, Channel
from vaeguard.data.limits import MAX_MEMORY, check_limits, too_long
from vaeguard.errors import RefusedError, UnreadableError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.data.channel import Place, Values

KILLED = "the process that decoded it was killed, probably because memory ran out; try a machine with more memory"
_MAIN = "import sys; sys.path[:] = sys.argv[1:]; from vaeguard.data.decoder import main; main()"
_LEAN = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""One thread, and memory that is given back."""


class DiedError(UnreadableError):
    """A process for decoding ended in the middle of a file; `late` is whether the file took too much time."""

    def __init__(self, path: str, reason: str, *, late: bool = False) -> None:
        super().__init__(path, reason)
        self.late = late


class Worker:
    """A process that decodes.

    Attributes
    ----------
    busy : bool
        Whether a function runs in it.
    """

    def __init__(self) -> None:
        check_limits()
        # Keys that interrupt the terminal's processes do not reach it: it ends when its input does.
        apart: dict[str, Any] = (
            {"creationflags": 0x00000200 | 0x08000000} if sys.platform == "win32" else {"process_group": 0}
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _MAIN, *map(str, sys.path)],
                bufsize=BUFFER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | _LEAN,
                **apart,
            )
        except OSError as error:
            raise VaeguardError(f"cannot start a process that decodes images ({error.strerror or error})") from error
        self._channel = Channel(cast("BinaryIO", self._process.stdout), cast("BinaryIO", self._process.stdin))
        self._ready = self.busy = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def call(self, name: str, function: str, arguments: dict[str, Any], *content: Values) -> None:
        """Have a function called for the file `name`.

        `function` is its module and name, separated by a colon. It is called with the other end of the channel, the
        content and the arguments.

        Raises
        ------
        DiedError
            The process has ended.
        VaeguardError
            The process could not begin.
        """
        self._name, self.busy = name, True
        if not self._ready:
            try:
                self._channel.receive(0)
            except (EOFError, OSError) as error:
                raise VaeguardError(
                    f"a process that decodes images ended with code {self._process.wait()} before it started; see the"
                    " message above, and check the installation with `vaeguard doctor`"
                ) from error
            self._ready = True
        self.send({"function": function, "arguments": arguments}, *content)

    def send(self, header: dict[str, Any], *arrays: Values) -> None:
        """Send what the function waits for.

        Raises
        ------
        DiedError
            The process has ended.
        """
        try:
            self._channel.send(header, *arrays)
        except OSError as error:
            raise self._died() from error

    def receive(self, place: Place | None = None) -> tuple[dict[str, Any], Values | None]:
        """The next answer of the function, or its result, under the key `result`; or raise its error.

        Raises
        ------
        DiedError
            The process has ended.
        """
        try:
            header, values = self._channel.receive(MAX_MEMORY, place)
        except (EOFError, OSError) as error:
            raise self._died() from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DiedError(self._name, f"its decoder returned invalid data ({error})") from error
        self.busy = not ("result" in header or "error" in header)
        if "error" in header:
            raise _error_of(header, self._name)
        return header, values

    def _died(self) -> DiedError:
        code = self._process.wait()
        if -code == getattr(signal, "SIGALRM", None) or (sys.platform == "win32" and code == 1):
            return DiedError(self._name, too_long(), late=True)
        if -code == getattr(signal, "SIGKILL", None):
            return DiedError(self._name, KILLED)
        return DiedError(
            self._name,
            f"the process that decoded it crashed ({_name_of(code)}); "
            "remove the file, or save it again with another program",
        )

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what was not sent cannot be sent any more
            self._channel.close()


def _name_of(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"code {code}"


def _error_of(header: dict[str, Any], name: str) -> Exception:
    """The error that `decoder.as_message` made a message of."""
    if "refusal" in header:
        return RefusedError(header["refusal"])
    if "system" in header:
        return OSError(*header["system"])
    return UnreadableError(name, str(header["error"]))


_idle: dict[int, deque[Worker]] = {}
"""The workers without work, by the process that started them, since a fork inherits the table."""


@contextlib.contextmanager
def borrowed() -> Iterator[Worker]:
    """A process for one caller; it is ended if the caller leaves while a function still runs in it."""
    idle = _idle.setdefault(os.getpid(), deque())
    worker = _alive(idle) or Worker()
    try:
        yield worker
    finally:
        if worker.busy:
            worker.end()
        else:
            idle.append(worker)


def _alive(idle: deque[Worker]) -> Worker | None:
    """A worker without work; one that somebody has ended meanwhile is left out."""
    with contextlib.suppress(IndexError):
        while True:
            worker = idle.pop()
            if worker.alive:
                return worker
            worker.end()
    return None


def warm_up() -> None:
    """Start a process, so that it is ready when it is needed."""
    idle = _idle.setdefault(os.getpid(), deque())
    if not idle:
        idle.append(Worker())


@atexit.register
def end_all() -> None:
    """End the processes without work."""
    for worker in _idle.pop(os.getpid(), ()):
        worker.end()
