"""Report the configuration that the update module `mender-configure` has applied."""

import json
import logging

from . import deployments, disk, errors
from .context import Context

LIMIT = 1 << 20

log = logging.getLogger(__name__)


def report(context: Context) -> None:
    """Send the configuration if there is one; an error is only logged, and the next inventory tries again.

    It goes with each inventory that is sent: the name of the installed artifact, which a configuration
    deployment changes, is part of that.
    """
    path = context.settings.places.device_configuration
    try:
        content = disk.read(path, LIMIT)
        if content is None:
            return
        values = json.loads(content)
        deployments.ask(context, lambda server: server.put_configuration(values))
    except (ValueError, RecursionError):
        log.warning("%s is not JSON, so the server does not get it; deploy a configuration again.", path)
    except errors.Error as error:
        context.store_pause("send-inventory", error)
        log.info("The configuration is not reported: %s", error)
