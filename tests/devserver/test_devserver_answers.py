"""The development server gives the answers of the real server, which are in docs/reference/answers.tsv."""

import difflib
from pathlib import Path

from helpers.artifacts import make_artifact
from helpers.device import REPO
from probe import probe

from mender_oneshot.devserver import DevServer

TABLE = REPO / "docs" / "reference" / "answers.tsv"

# The real server ran with a substitute for its database, which affects these lines; here they are corrected.
EXCEPTIONS = {
    "deploy: all devices\t500\tapplication/json\tinternal error": (
        "deploy: all devices\t422\tapplication/json\tNo artifact for the deployment"
    ),
}


def test_every_answer_equals_that_of_the_real_server(tmp_path: Path) -> None:
    real = TABLE.read_text().splitlines()
    assert [line for line in EXCEPTIONS if line not in real] == []
    image = "rootfs-image"
    artifact = make_artifact(
        tmp_path / "probe-1.mender",
        "probe-1",
        ["probe-type"],
        {"image": bytes(1000)},
        payload_type=image,
        provides={f"{image}.checksum": "0" * 64, f"{image}.version": "probe-1"},
    )
    ours: list[str] = []
    with DevServer(tmp_path / "server", tls=False) as server:
        probe(server.url, artifact, "admin@example.com:mysecretpassword", ours.append)
    # At its root, the development server has a page of its own.
    assert [line for line in ours if line.startswith("root\t200\ttext/html")]
    ours = [line for line in ours if not line.startswith("root\t")]
    expected = [EXCEPTIONS.get(line, line) for line in real if not line.startswith("root\t")]
    assert len(expected) > 290
    difference = difflib.unified_diff(expected, ours, "the real server", "ours", n=0, lineterm="")
    assert "\n".join(difference) == ""
