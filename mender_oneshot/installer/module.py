"""Calling an update module (protocol v3): its calls, its answers, its time limit, and what it leaves behind.

The protocol: update-modules.md section 1.
"""

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple

from .. import scripts
from . import output
from . import process as processes

ANSWER_LIMIT = 4096

log = logging.getLogger(__name__)


class ModuleFailed(Exception):
    """A call of a module failed; the text is a sentence that names the module and the call."""


class Module(NamedTuple):
    """An update module and the tree it works in.

    `command` is its command line without the two arguments of a call, `seconds` the time limit of a call,
    `note` the file that names the process of the call under way.
    """

    name: str
    command: tuple[str, ...]
    tree: str
    environment: Mapping[str, str]
    seconds: float
    note: str

    def call(self, name: str) -> None:
        """Make a call that acts, its output going to our stderr; raises `ModuleFailed`."""
        process = self.start(name)
        self.wait(process, name, time.monotonic() + self.seconds)

    def ask(self, name: str, *answers: str) -> str:
        """Make a call that asks; no output is the first of `answers`. Raises `ModuleFailed`."""
        process = self.start(name, stdout=subprocess.PIPE)
        pipe = process.stdout
        try:
            answer = self._read(process, pipe.fileno(), name) if pipe else b""
        except BaseException:
            if process.poll() is None:  # the time limit of the command has passed
                processes.stop(process)
            raise
        finally:
            if pipe:
                pipe.close()
        text = answer.decode("utf-8", "replace").removesuffix("\n") or answers[0]
        if text not in answers:
            processes.kill_session(process.pid)
            raise ModuleFailed(
                f"The update module {self.name} answered {text[:60]!r} to {name}; it must be one of "
                f"{', '.join(answers)}: correct the module."
            )
        return text

    def start(self, name: str, stdout: int | None = None) -> processes.Started:
        """Start a call in a session of its own; raises `ModuleFailed` or `errors.DiskError`."""
        if not self.command:
            raise ModuleFailed(f"The update module {self.name} is missing in this system; install it.")
        if not os.path.isdir(self.tree):
            raise ModuleFailed(
                f"The update module {self.name} cannot run {name}, because its directory {self.tree} is "
                "missing; correct the module, which may have removed it."
            )
        command = (*self.command, name, self.tree)
        try:
            return processes.start(command, self.tree, self.environment, self.note, stdout)
        except OSError as error:
            raise ModuleFailed(
                f"The update module {self.name} cannot be started: {scripts.explain(self.command[0], error)}."
            ) from error

    def wait(self, process: processes.Started, name: str, end: float) -> None:
        """Wait for a call to end; raises `ModuleFailed` if it fails, or is not over at `end` (monotonic).

        A call that fails leaves no process behind. What one that succeeds has left running may be a service
        of the device.
        """
        try:
            code = processes.wait(process, end)
        except BaseException:
            processes.stop(process)
            raise
        if code is None:
            raise self.too_slow(process, name)
        processes.forget(self.note)
        if code:
            processes.kill_session(process.pid)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            why = output.reason(process.printed_from)
            raise ModuleFailed(f"The update module {self.name} failed in {name} ({how}){why}")

    def too_slow(self, process: "subprocess.Popen[bytes]", name: str) -> ModuleFailed:
        """Stop a call that has taken too long, and return the error to raise."""
        processes.stop(process)
        return ModuleFailed(
            f"The update module {self.name} did not end {name} within {self.seconds:.0f} s and was "
            "stopped; raise ModuleTimeoutSeconds if it needs longer."
        )

    def _read(self, process: processes.Started, pipe: int, name: str) -> bytes:
        """Return what a call prints until it ends, its children or not."""
        end = time.monotonic() + self.seconds
        os.set_blocking(pipe, False)
        answer, ended, pause = b"", False, 0.001
        while True:
            ended = process.poll() is not None
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(pipe, ANSWER_LIMIT):
                    answer += piece
                    if len(answer) > ANSWER_LIMIT:
                        processes.stop(process)
                        raise ModuleFailed(
                            f"The update module {self.name} printed more than {ANSWER_LIMIT} bytes to "
                            f"{name}; correct the module."
                        )
            if ended or time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        self.wait(process, name, end)
        return answer
