"""Devices and deployments as rows of values, and the one that the user means."""

import os
from typing import Any

from .management_api import DEVICES, INVENTORY
from .management_client import Failed, ManagementClient
from .management_deployments import DEPLOYMENTS

Row = dict[str, Any]


def devices(client: ManagementClient) -> list[Row]:
    """Return all devices, each with the release that its inventory names."""
    installed = {
        shown["id"]: attribute["value"]
        for shown in client.pages(INVENTORY)
        for attribute in shown["attributes"]
        if attribute["name"] == "artifact_name"
    }
    return [
        {
            "id": device["id"],
            "status": device["status"],
            "identity": device["identity_data"],
            "artifact_name": installed.get(device["id"]),
            "last_contact": device.get("check_in_time"),
        }
        for device in client.pages(DEVICES)
    ]


def device(known: list[Row], wanted: str) -> Row:
    """Return the device with this id, this beginning of an id or this value in its identity."""
    found = [row for row in known if row["id"] == wanted or wanted in _identity_words(row)]
    found = found or [row for row in known if wanted and row["id"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{len(found)} devices match {wanted}; write more of the id.", os.EX_USAGE)
    raise Failed(
        f"No device matches {wanted}; list them with `mender-oneshot-devserver devices`.", os.EX_NOINPUT
    )


def _identity_words(row: Row) -> list[str]:
    return [word for name, value in row["identity"].items() for word in (str(value), f"{name}={value}")]


def deployment_id(client: ManagementClient, wanted: str) -> str:
    """Return the id of the deployment with this id or this beginning of an id."""
    found = [str(row["id"]) for row in client.pages(DEPLOYMENTS) if wanted and row["id"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{len(found)} deployments match {wanted}; write more of the id.", os.EX_USAGE)
    raise Failed(
        f"No deployment matches {wanted}; list them with `mender-oneshot-devserver deployments`.",
        os.EX_NOINPUT,
    )


def summary(found: Row) -> Row:
    """Return what a list shows of a deployment; `devices` is the number of devices in each status."""
    counts = {status: n for status, n in found["statistics"]["status"].items() if n}
    return {
        "id": found["id"],
        "artifact_name": found["artifact_name"],
        "status": found["status"],
        "devices": counts,
        "created": found["created"],
    }


def statuses(client: ManagementClient, deployment: str) -> list[Row]:
    """Return the status of a deployment on each device that has received it; `log` is whether it sent one."""
    return [
        {
            "id": row["id"],
            "status": row["status"],
            "substate": row.get("substate", ""),
            "log": row["log"],
        }
        for row in client.get(f"{DEPLOYMENTS}/{deployment}/devices")
    ]
