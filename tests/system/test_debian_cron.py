"""The installed /etc/cron.d file, off and on, under Debian's own cron."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers.cron import SENDMAIL, TICK, read
from helpers.debian import make_install, need_root, system
from helpers.machine import copy, write
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real

# One proves that cron mails, the other that its minute is over.
OTHERS = """PATH=/usr/bin
* * * * * root echo this is mailed
* * * * * root date >> /ticks
"""

START = """
mount -t proc proc {root}/proc
exec chroot {root} sh -c '
    busybox syslogd -O /var/log/messages
    exec cron -f'
"""


def test_the_cron_file_is_off_and_once_on_does_its_work_and_mails_nothing(tmp_path: Path) -> None:
    need_root("cron", "unshare", "make")
    with system(tmp_path / "system") as root, DevServer(tmp_path / "server") as server:
        make_install(root)
        copy(Path("/usr/sbin/cron"), root / "usr/sbin/cron")
        write(root / "usr/sbin/sendmail", SENDMAIL, 0o755)
        write(root / "etc/cron.d/others", OTHERS)
        file = root / "etc/cron.d/mender-oneshot"
        installed = file.read_text()
        # Off it lies beside, enabled by what its comment says; one minute shows both.
        *others, last = installed.splitlines()
        assert last.startswith("#* * * * * ")
        write(root / "etc/cron.d/on", "\n".join([*others, last[1:]]) + "\n")
        write(root / "etc/crontab", "")
        write(root / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        write(root / "var/lib/mender/device_type", "device_type=board\n")
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {"ServerURL": server.url, "ServerCertificate": "/etc/mender/server.pem"}
        write(root / "etc/mender/mender.conf", json.dumps({**settings, "StartSpreadSeconds": 0}))
        (root / "var/spool/cron/crontabs").mkdir(parents=True, exist_ok=True)
        copy(Path("/bin/busybox"), root / "usr/bin/busybox")
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", START.format(root=root)],
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin"},
        )
        try:
            server.wait_for(lambda seen: seen.path.endswith("/auth_requests"), timeout=TICK)
            messages = root / "var/log/messages"
            until(lambda: "has not accepted this device yet" in read(messages), "the syslog says so")
            until(lambda: "this is mailed" in read(root / "var/mail/all"), "what is printed is mailed")
        finally:
            process.kill()
            process.wait()
        print(read(messages))  # pytest shows it when the test fails
        # Asked by the line that is on, and only by that one.
        assert read(messages).count("has not accepted") == 1
        assert len(server.requests) == 1
        mails = [line for line in read(root / "var/mail/all").splitlines() if line.startswith("Subject:")]
        assert mails
        assert not [subject for subject in mails if "mender" in subject]
