"""Turn the exception of a missing or broken library, or of a lack of memory, into an error message."""

import sys

from . import errors

LIBRARIES = ("click", "cryptography", "urllib3", "wsproto", "msgpack")
_OURS = __name__.partition(".")[0]


def unusable(problem: BaseException) -> errors.Error | None:
    """Return the error that an exception means, or None if it is a bug of this program."""
    if isinstance(problem, MemoryError):
        return errors.OutOfMemory()
    module = _module(problem)
    library = next((name for name in (module, _at_fault(problem)) if name in LIBRARIES), "")
    if _is_broken(problem):
        library = "cryptography"
    absent = isinstance(problem, ModuleNotFoundError) and sys.modules.get(library) is None
    if absent and module == library and _at_fault(problem) != library:
        return errors.SettingsError(f"The library {library} is missing; install python3-{library}.")
    if library and (module or _while_importing(problem, library) or _is_broken(problem)):
        return errors.SettingsError(
            f"The library {library} is installed but cannot be used ({_short(problem)}); "
            f"reinstall python3-{library}."
        )
    if module == _OURS:
        return errors.SettingsError(f"mender-oneshot is corrupt ({_short(problem)}); reinstall it.")
    if module in sys.stdlib_module_names:
        return errors.SettingsError(
            f"A part of Python's standard library cannot be used ({_short(problem)}); "
            "install all of it, such as Debian's python3 or Yocto's python3-modules."
        )
    return None


def _module(problem: BaseException) -> str:
    """Return the top-level name of the module that failed to import, or ""."""
    if isinstance(problem, ImportError):
        return (problem.name or "").partition(".")[0]
    if isinstance(problem, SyntaxError):  # a file that a power cut has truncated
        parts = (problem.filename or "").split("/")
        return next((name for name in (*LIBRARIES, _OURS) if name in parts), "")
    return ""


def _at_fault(problem: BaseException) -> str:
    """Return the package, one of `LIBRARIES` or ours, whose code ran last, or ""."""
    known = [name for name, _ in _frames(problem) if name in LIBRARIES or name == _OURS]
    return known[-1] if known else ""


def _while_importing(problem: BaseException, package: str) -> bool:
    return (package, "<module>") in _frames(problem)


def _frames(problem: BaseException) -> list[tuple[str, str]]:
    """Return the top-level package and the function of each frame, innermost last."""
    frames, traceback = [], problem.__traceback__
    while traceback:
        frame = traceback.tb_frame
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        frames.append((package, frame.f_code.co_name))
        traceback = traceback.tb_next
    return frames


def _is_broken(problem: BaseException) -> bool:
    """Return whether an exception is cryptography's for a broken OpenSSL, or a panic of its Rust code."""
    kind = type(problem)
    internal = (kind.__module__, kind.__name__) == ("cryptography.exceptions", "InternalError")
    return internal or kind.__module__ == "pyo3_runtime"


def _short(problem: BaseException) -> str:
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:200]
