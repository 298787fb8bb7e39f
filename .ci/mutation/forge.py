"""Make a test run cheap: fork a warm process for pytest, and another for each invocation of the client."""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LIBRARIES = (
    "click",
    "cryptography.x509",
    "hypothesis",
    "logging.handlers",
    "msgpack",
    "pytest",
    "ssl",
    "urllib3",
    "wsproto",
)


def warm_up() -> None:
    """Import the libraries of client and tests, which no mutant changes."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class Lines:
    """Records which lines of the client a process runs; appends them to a file."""

    def __init__(self, tree: str, path: str, test: str) -> None:
        self.package = f"{tree}/mender_oneshot/"
        self.path = path
        self.test = test
        self.seen: set[tuple[str, int]] = set()
        self.left: dict[int, set[int]] = {}  # by identity: comparing code objects takes long
        self.kept: list[CodeType] = []

    def start(self) -> None:
        """Begin to record, in this thread."""
        sys.settrace(self._call)

    def stop(self) -> None:
        """Stop, and write what was seen."""
        sys.settrace(None)
        lines: dict[str, list[int]] = {}
        for name, line in self.seen:
            lines.setdefault(name, []).append(line)
        with open(self.path, "a") as file:
            file.write(json.dumps({"test": self.test, "lines": lines}) + "\n")
        self.seen = set()

    def _call(self, frame: FrameType, event: str, value: Any) -> Any:
        code = frame.f_code
        if id(code) not in self.left:
            self.kept.append(code)
            name = code.co_filename
            ours = name.startswith(self.package) and "/devserver/" not in name and code.co_name != "<module>"
            lines = {line for _, _, line in code.co_lines() if line} if ours else set()
            # No event tells that the first line of a function of several lines runs.
            self.left[id(code)] = lines - {code.co_firstlineno} or lines
        return self._line if self.left[id(code)] else None

    def _line(self, frame: FrameType, event: str, value: Any) -> Any:
        left = self.left[id(frame.f_code)]
        if event == "line" and frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.seen.add((frame.f_code.co_filename[len(self.package) :], frame.f_lineno))
        return self._line if left else None  # a function whose lines are all seen costs nothing more


class Forge:
    """A process that imports the client once and is forked for each invocation."""

    def __init__(self, tree: str) -> None:
        self.tree = tree
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        if not os.fork():
            self._ours.close()
            with contextlib.suppress(BaseException):
                self._serve(theirs)
            os._exit(0)
        theirs.close()
        self._answers = self._ours.makefile("r")

    def run(self, job: dict[str, Any]) -> int:
        """Run one invocation to its end and return its exit code."""
        with self._lock:
            self._ours.sendall(json.dumps(job).encode() + b"\n")
            return int(self._answers.readline() or 1)

    def _serve(self, theirs: socket.socket) -> None:
        sys.path.insert(0, self.tree)
        for path in sorted(Path(self.tree, "mender_oneshot").glob("**/*.py")):
            if not {"devserver", "terminal", "__pycache__"} & set(path.parts):
                name = ".".join(path.relative_to(self.tree).with_suffix("").parts).removesuffix(".__init__")
                with contextlib.suppress(Exception):  # the invocation fails with it by itself
                    importlib.import_module(name)
        gc.freeze()
        for line in theirs.makefile("r"):
            child = os.fork()
            if not child:
                self._invoke(json.loads(line))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            theirs.sendall(b"%d\n" % code)

    def _invoke(self, job: dict[str, Any]) -> None:
        code = 1
        lines = Lines(self.tree, job["lines"], job["test"]) if job["lines"] else None
        try:
            for descriptor, path in ((0, "/dev/null"), (1, job["out"]), (2, job["err"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
            os.closerange(3, 1024)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
            os.environ.clear()
            os.environ.update(job["env"])
            os.umask(job["umask"])
            os.chdir("/")
            signal.set_wakeup_fd(-1)
            warnings.simplefilter("error")
            sys.argv = ["mender-oneshot", *job["words"]]
            from mender_oneshot.__main__ import main

            if lines:
                lines.start()
            code = main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001  # as an interpreter would
            traceback.print_exc()
        if lines:
            lines.stop()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code or 0)
