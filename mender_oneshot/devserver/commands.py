"""The commands that talk to a running server: accept devices, upload, deploy, read logs."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from . import lookup, running_server, table
from .common_options import directory_option, json_option
from .lookup import Row
from .management_api import DEVICES, INVENTORY
from .management_client import Failed, ManagementClient, Rejected
from .management_deployments import ARTIFACTS, DEPLOYMENTS

_POLL_SECONDS = 0.5
_SUCCESSES = ("success", "already-installed")


@click.command()
@directory_option
@json_option
def devices(directory: Path, as_json: bool) -> None:
    """List the devices."""
    rows = lookup.devices(_client(directory))
    table.show({"devices": rows}, table.lines(rows), as_json)


@click.command()
@click.argument("device", required=False)
@click.option("--all", "everyone", is_flag=True, help="Accept all pending devices.")
@directory_option
@json_option
def accept(device: str | None, everyone: bool, directory: Path, as_json: bool) -> None:
    """Accept a device.

    Without DEVICE, it is the only pending one.
    """
    if device and everyone:
        raise click.UsageError("DEVICE and --all exclude each other")
    client = _client(directory)
    known = lookup.devices(client)
    pending = [row for row in known if row["status"] == "pending"]
    if device:
        chosen = [lookup.device(known, device)]
    elif not pending:
        raise Failed(
            "No device is pending; run `mender-oneshot auth` on the device, or check ServerURL.",
            os.EX_NOINPUT,
        )
    elif len(pending) > 1 and not everyone:
        raise Failed(f"{len(pending)} devices are pending; name one, or use --all.", os.EX_USAGE)
    else:
        chosen = pending
    for row in chosen:
        _accept(client, row["id"])
    ids = [row["id"] for row in chosen]
    table.show(
        {"accepted": ids},
        [f"Accepted {row['id']} ({table.words(row['identity'])})." for row in chosen],
        as_json,
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@directory_option
@json_option
def upload(file: Path, directory: Path, as_json: bool) -> None:
    """Upload an artifact."""
    client = _client(directory)
    try:
        artifact = client.get(f"{ARTIFACTS}/{client.upload(file)}")
    except OSError as error:
        raise Failed(f"Cannot read {file}: {error.strerror}; check the path.", os.EX_NOINPUT) from None
    except Rejected as error:
        if error.status == 409:
            text = (
                f"An artifact with the name and a device type of {file} is there already; rename the new one."
            )
        else:
            text = f"The server rejects {file}: {error}; check it with `mender-artifact validate`."
        raise Failed(text, os.EX_DATAERR) from None
    kinds = artifact["device_types_compatible"]
    shown = {name: artifact[name] for name in ("id", "name", "size")} | {"device_types": kinds}
    line = f"Uploaded {artifact['name']} for {', '.join(kinds)}: {artifact['size']} bytes."
    table.show({"artifact": shown}, [line], as_json)


@click.command()
@click.argument("artifact")
@click.argument("names", metavar="[DEVICE]...", nargs=-1)
@click.option("--force", is_flag=True, help="Install even if the device has this release already.")
@click.option("--wait", is_flag=True, help="Wait for the results; exit with 70 if the update failed.")
@directory_option
@json_option
def deploy(
    artifact: str, names: tuple[str, ...], force: bool, wait: bool, directory: Path, as_json: bool
) -> None:
    """Deploy an artifact, given by its name.

    Without DEVICE, it is deployed to all accepted devices.
    """
    client = _client(directory)
    known = lookup.devices(client) if names else []
    ids = list(dict.fromkeys(lookup.device(known, name)["id"] for name in names))
    body = {"name": artifact, "artifact_name": artifact, "force_installation": force}
    try:
        deployment = client.send(
            "POST", DEPLOYMENTS, body | ({"devices": ids} if ids else {"all_devices": True})
        )
    except Rejected as error:
        raise _not_deployed(client, artifact, error) from None
    if not as_json:
        click.echo(f"Deployment {deployment} of {artifact} created.")
    ended = _wait(client, deployment, quiet=as_json) if wait else None
    shown = {"id": deployment, "artifact_name": artifact}
    if as_json:
        table.show({"deployment": shown | ({} if ended is None else {"devices": ended})}, [], as_json)
    if ended is not None and not all(row["status"] in _SUCCESSES for row in ended):
        raise Failed(
            f"The deployment failed; read `mender-oneshot-devserver log {deployment}`.", os.EX_SOFTWARE
        )


@click.command()
@directory_option
@json_option
def deployments(directory: Path, as_json: bool) -> None:
    """List the deployments, newest first."""
    rows = [lookup.summary(found) for found in _client(directory).pages(DEPLOYMENTS)]
    table.show({"deployments": rows}, table.lines(rows), as_json)


@click.command()
@click.argument("deployment")
@directory_option
@json_option
def abort(deployment: str, directory: Path, as_json: bool) -> None:
    """Abort a deployment."""
    client = _client(directory)
    found = lookup.deployment_id(client, deployment)
    try:
        client.send("PUT", f"{DEPLOYMENTS}/{found}/status", {"status": "aborted"})
    except Rejected:
        raise Failed(
            f"The deployment {found} is finished already; nothing to abort.", os.EX_DATAERR
        ) from None
    table.show({"aborted": found}, [f"Aborted {found}."], as_json)


@click.command()
@click.argument("deployment")
@click.argument("device", required=False)
@directory_option
@json_option
def log(deployment: str, device: str | None, directory: Path, as_json: bool) -> None:
    """Print the results of a deployment.

    These are the status on each device, and the logs that devices sent; without DEVICE, of all devices.
    """
    client = _client(directory)
    found = lookup.deployment_id(client, deployment)
    rows = lookup.statuses(client, found)
    if device:
        wanted = lookup.device(lookup.devices(client), device)["id"]
        rows = [row for row in rows if row["id"] == wanted]
        if not rows:
            raise Failed(
                f"The deployment {found} has not reached the device {wanted}; wait for its next check, or "
                "create a deployment for this device.",
                os.EX_NOINPUT,
            )
    lines = [] if rows else ["No device has asked for this deployment yet."]
    for row in rows:
        path = f"{DEPLOYMENTS}/{found}/devices/{row['id']}/log"
        row["log"] = client.text(path).splitlines() if row.pop("log") else None
        lines.append(
            f"Device {row['id']}: {row['status']}" + (f" ({row['substate']})" if row["substate"] else "")
        )
        lines += [f"  {line}" for line in row["log"] or ["The device sent no log."]]
    table.show({"deployment": found, "devices": rows}, lines, as_json)


@click.command()
@click.argument("device")
@directory_option
@json_option
def inventory(device: str, directory: Path, as_json: bool) -> None:
    """Print the inventory of a device."""
    client = _client(directory)
    found = lookup.device(lookup.devices(client), device)["id"]
    attributes = client.get(f"{INVENTORY}/{found}")["attributes"]
    rows = [{name: attribute[name] for name in ("scope", "name", "value")} for attribute in attributes]
    table.show({"device": found, "attributes": rows}, table.lines(rows), as_json)


COMMANDS: Sequence[click.Command] = (devices, accept, inventory, upload, deploy, deployments, log, abort)


def _client(directory: Path) -> ManagementClient:
    try:
        return ManagementClient(running_server.find(directory))
    except running_server.NotRunning:
        text = (
            f"No server runs in {directory}; start one with `mender-oneshot-devserver serve`, or name the "
            "directory of a running one with --directory."
        )
    except OSError as error:
        place = error.filename or directory
        text = f"Cannot read {place}: {error.strerror}; run this command as the user of the server."
    raise Failed(text, os.EX_UNAVAILABLE)


def _accept(client: ManagementClient, device_id: str) -> None:
    """Accept the newest pending key of a device; without one, its newest key."""
    auth_sets = client.get(f"{DEVICES}/{device_id}")["auth_sets"]
    pending = [auth_set for auth_set in auth_sets if auth_set["status"] == "pending"]
    if not pending and any(auth_set["status"] == "accepted" for auth_set in auth_sets):
        return
    chosen = (pending or auth_sets)[-1]["id"]
    client.send("PUT", f"{DEVICES}/{device_id}/auth/{chosen}/status", {"status": "accepted"})


def _not_deployed(client: ManagementClient, artifact: str, error: Rejected) -> Failed:
    if error.status == 422:
        names = ", ".join(sorted({a["name"] for a in client.get(ARTIFACTS)})) or "none"
        return Failed(
            f"There is no artifact named {artifact} (there are: {names}); upload it first with "
            "`mender-oneshot-devserver upload FILE`.",
            os.EX_NOINPUT,
        )
    if str(error) == "No devices for the deployment":
        return Failed(
            "No device is accepted; accept one with `mender-oneshot-devserver accept`.", os.EX_NOINPUT
        )
    return Failed(f"The server rejects the deployment: {error}.", os.EX_DATAERR)


def _wait(client: ManagementClient, deployment: str, *, quiet: bool) -> list[Row]:
    """Wait until a deployment is finished, print each new status, and return the last ones."""
    shown: set[str] = set()
    if not quiet:
        click.echo("Waiting for the devices; Ctrl-C ends the wait, not the deployment.", err=True)
    while True:
        finished = client.get(f"{DEPLOYMENTS}/{deployment}")["status"] == "finished"
        rows = lookup.statuses(client, deployment)
        for row in rows:
            line = f"{row['id']}: {row['status']}"
            if not quiet and line not in shown:
                click.echo(line)
            shown.add(line)
        if finished:
            return [{"id": row["id"], "status": row["status"]} for row in rows]
        time.sleep(_POLL_SECONDS)
