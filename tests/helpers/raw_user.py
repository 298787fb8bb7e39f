"""A user of the management API, over bare `http.client`."""

import base64
from typing import Any

from helpers.raw_device import Reply, fetch
from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.deviceconfig_api import CONFIGURATIONS
from mender_oneshot.devserver.management_api import LOGIN
from mender_oneshot.devserver.management_deployments import ARTIFACTS

EMAIL = "someone@example.com"
CONFIGURATION = {"timezone": "Europe/Oslo", "key": "v"}


def basic(login: str) -> dict[str, str]:
    """Return the headers of Basic authentication for "name:password"."""
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


class RawUser:
    """A user who is logged in; call it to send a request."""

    def __init__(self, server: DevServer) -> None:
        self.server = server
        reply = fetch(server, "POST", server.url + LOGIN, b"", basic(f"{EMAIL}:secret"))
        self.token = reply.body.decode()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        return fetch(self.server, method, self.server.url + path, body, sent)

    def upload(self, content: bytes, *, chunked: bool = False) -> Reply:
        """Upload an artifact with the description "ours"."""
        form = b'--B\r\nContent-Disposition: form-data; name="description"\r\n\r\nours\r\n'
        form += b'--B\r\nContent-Disposition: form-data; name="artifact"; filename="a.mender"\r\n\r\n'
        form += content + b"\r\n--B--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=B"}
        if not chunked:
            return self("POST", ARTIFACTS, form, **kind)
        frames = [form[at : at + 777] for at in range(0, len(form), 777)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(f), f) for f in frames) + b"0\r\n\r\n"
        return self("POST", ARTIFACTS, body, **kind, **{"Transfer-Encoding": "chunked"})

    def deploy_configuration(self, device_id: str, values: Any = CONFIGURATION) -> str:
        """Set and deploy the configuration of a device; return the deployment's id."""
        path = f"{CONFIGURATIONS}/{device_id}"
        assert self("PUT", path, values).status == 204
        reply = self("POST", f"{path}/deploy", {"retries": 0})
        assert reply.status == 200
        deployment: str = reply.json["deployment_id"]
        return deployment
