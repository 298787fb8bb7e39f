"""One invocation: take the lock, load the state, perform the steps that are due, save the state."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator

from . import disk, errors, identity, owner, paths, plan, snapshot, state, state_store, steps
from .context import Connection, Context, Done, IdentityScript, Outcome, Progress
from .deadline import deadline
from .deployment_log import Handler
from .lock import take as take_lock
from .options import Options
from .settings import Settings, no_server
from .state import State
from .state_store import Store

log = logging.getLogger(__name__)

MOST_STEPS = 20
"""Most steps in one `run --all`: more than an update has, so that a plan with a cycle would end."""


def carry_out(
    options: Options, settings: Settings, progress: Progress, on_done: Callable[[Done], None]
) -> None:
    """Perform the command and pass each outcome to `on_done`; raises the `errors.Error` of a step."""
    with deadline(options.max_runtime), _context(options, settings, progress) as context:
        if options.command == "run":
            _run(context, options, on_done)
        else:
            on_done(Done(options.command, _named(context, options)))


@contextlib.contextmanager
def _context(options: Options, settings: Settings, progress: Progress) -> Iterator[Context]:
    """Hold the lock during an invocation, and save the state at its end, whatever happened."""
    disk.ensure_directory(settings.places.datastore)
    lock = take_lock(settings.places.data(paths.LOCK), wait=options.command != "run")
    try:
        store = _open_store(settings, lock)
        context = _new_context(options, settings, store, progress)
        handler = Handler(settings.log_directory)
        root = logging.getLogger(__package__)
        handler.addFilter(lambda record: bool(store.state.deployment or store.state.handoff))
        root.addHandler(handler)
        try:
            yield context
        finally:
            root.removeHandler(handler)
            context.connection.close()
            store.finish()
    finally:
        os.close(lock)


def _new_context(options: Options, settings: Settings, store: Store, progress: Progress) -> Context:
    paced = options.command == "run"
    context = Context(
        settings=settings,
        store=store,
        now=lambda: snapshot.look(settings.places),
        progress=progress,
        syslog=options.syslog,
        connection=Connection(),
        identity=IdentityScript(lambda: identity.read_unique(settings, store.state)),
        perform=lambda name: perform(context, name, paced=paced),
    )
    return context


def _open_store(settings: Settings, lock: int) -> Store:
    """Load the state; members that cannot be read start from their defaults.

    The loss of the state is safe: an update that is being installed has its `update.lock`, and the format of
    the identity, by which the server recognizes this device, is also in the lock file.
    """
    path = settings.places.data(paths.STATE)
    try:
        known = state_store.load(path)
    except state.Unreadable as error:
        corrupt = error.content
        copied = f", a copy is {state_store.quarantine(path, corrupt)}" if corrupt else ""
        log.error("The state %s cannot be used (%s)%s; starting with an empty state.", path, error, copied)
        known = State(identity_format=identity.recovered_format(lock, corrupt))
    if known.damaged:
        log.warning(
            "The state %s has members that cannot be read (%s); using their defaults.",
            path,
            ", ".join(known.damaged[:10]),
        )
        if not known.identity_format:
            known = known._replace(identity_format=identity.recovered_format(lock))
    store = Store(path, known)
    if known.spread < 0:
        first = known == State()
        store.state = store.state._replace(spread=owner.draw_spread())
        if first:
            store.state = store.state._replace(identity_format=identity.first_format(settings, lock))
    return store


def _run(context: Context, options: Options, on_done: Callable[[Done], None]) -> None:
    """Perform the next step that is due; with `--all`, one after the other."""
    store, settings = context.store, context.settings
    if not settings.servers:
        raise no_server(settings)
    by_hand = sys.stdout.isatty()
    if options.force or by_hand:
        from . import pacing  # timers do not need it
    if options.force:
        store.state, settings = pacing.forced(store.state, settings)
    for turn in range(MOST_STEPS if options.every_step else 1):
        known, paced = store.state, settings
        if by_hand and turn == 0:
            known, paced = pacing.by_hand(known, settings)
        step = plan.next_step(known, paced, context.now(), options.only)
        if step is None:
            return
        if step not in ("tidy", "resume"):  # they make no request, and `tidy` frees space
            _ensure_writable(context, step)
        outcome = perform(context, step, paced=True)
        on_done(Done(step, outcome))
        if outcome.word == "handed-off":
            return


def _named(context: Context, options: Options) -> Outcome:
    """Perform the step that the user named, whatever the interval."""
    if options.command == "report":
        from .steps import report

        return report.run(context, status=options.status)
    if options.command == "announce":
        from .steps import announce

        return announce.run(context, status=options.status)
    if options.command == "bootstrap" and options.force:
        from .steps import bootstrap

        return bootstrap.run(context, force=True)
    if options.command == "auth" and not options.fresh:
        other = _confirm_owner(context, "auth")
        if other:
            log.warning("%s", other.sentence)
        if _has_good_token(context):
            return Outcome("kept", "The device is authorized; its token is still valid.")
    if options.command != "bootstrap":
        _ensure_writable(context, options.command)
    return perform(context, options.command, paced=False)


def _ensure_writable(context: Context, name: str) -> None:
    """Raise `errors.NoSpace` or `errors.DiskError` if what a step changes could not be saved."""
    store = context.store
    if store.written:
        return
    if name == "check-update" and _has_good_token(context):
        store.ensure_writable_for_check()
    else:
        store.ensure_writable()


def perform(context: Context, name: str, *, paced: bool) -> Outcome:
    """Perform one step, after an authorization if it needs a token and there is no valid one.

    Every error is counted as a failure of the step, so that the next run backs off.
    """
    try:
        return _perform(context, name, paced)
    except errors.Error as error:
        error.step = error.step or name
        raise


def _perform(context: Context, name: str, paced: bool) -> Outcome:
    _respect_pause(context, name)
    if name not in ("bootstrap", "tidy", "resume"):
        other = _confirm_owner(context, name)
        if other and (paced or name == "deliver"):
            return other
        if other:
            log.warning("%s", other.sentence)
    if name in plan.NEEDS_TOKEN and not _has_good_token(context):
        perform(context, "auth", paced=paced)
        _respect_pause(context, name)  # the server that issued the token may have asked for one
    return _attempt(context, name, paced)


def _has_good_token(context: Context) -> bool:
    return plan.token_is_good(context.store.state.token, context.settings.servers, context.now().time)


def _confirm_owner(context: Context, name: str) -> Outcome | None:
    """Compare the device with the state; a time-out there counts as a failure of the step."""
    try:
        return owner.confirm(context)
    except errors.DeadlineExceeded as error:
        _count_failure(context, name, error)
        raise


def _attempt(context: Context, name: str, paced: bool) -> Outcome:
    """Perform one step by itself, and count its failures in a row."""
    try:
        outcome = _within_memory(context, name, paced)
    except (errors.NothingInProgress, errors.ScriptPause):
        raise
    except errors.NotYet as error:
        if paced:
            _count(context, name, str(error), failed=False)
        raise
    except errors.Error as error:
        _count_failure(context, name, error)
        context.store_pause(name, error)
        raise
    if outcome.word in ("over", "waiting"):
        # A server that repeats itself, or a sub-updater that still runs, is checked less and less often.
        _count(context, name, outcome.sentence, failed=False)
        return outcome
    store = context.store
    # A response to a check for updates shows that the token is accepted, whatever became of a later `auth`.
    ended = (name, "auth") if name == "check-update" else (name,)
    failures = {other: failure for other, failure in store.state.failures.items() if other not in ended}
    store.state = store.state._replace(failures=failures)
    return outcome


def _within_memory(context: Context, name: str, paced: bool) -> Outcome:
    """Perform a step; too little memory for it is an error like others, which is counted."""
    try:
        return steps.load(name).run(context, paced=paced)
    except MemoryError as error:
        raise errors.OutOfMemory from error


def _respect_pause(context: Context, name: str) -> None:
    """Raise `errors.TemporaryError` during a pause of the hosts that a step would connect to."""
    now = context.now().time
    wait = plan.pause_remaining(context.store.state, context.settings, name, now)
    if wait:
        raise errors.ServerPause(plan.pause_in_words(context.store.state, wait, now))


def _count_failure(context: Context, name: str, error: errors.Error) -> None:
    _count(context, name, str(error), failed=True)


def _count(context: Context, name: str, why: str, *, failed: bool) -> None:
    store = context.store
    failure = plan.failed_again(store.state.failures.get(name), context.now().time, why, failed=failed)
    store.state = store.state._replace(failures={**store.state.failures, name: failure})
