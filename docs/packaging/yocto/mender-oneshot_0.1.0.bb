# Not built: based on openembedded-core, but never run through bitbake. See README.md.
SUMMARY = "Daemonless Mender device client: one step per invocation"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# In the same directory; create it with: git archive --prefix=mender-oneshot-0.1.0/ -o mender-oneshot-0.1.0.tar.gz HEAD
SRC_URI = "file://mender-oneshot-${PV}.tar.gz"

inherit allarch bash-completion python3native systemd

EXTRA_OEMAKE = "\
    DESTDIR=${D} PREFIX=${prefix} SYSCONFDIR=${sysconfdir} UNITDIR=${systemd_system_unitdir} \
    PYTHON=${bindir}/python3 COMPILE=${PYTHON} \
"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    oe_runmake install
    rm -r ${D}${datadir}/zsh ${D}${datadir}/fish
}

# The parts of Python's standard library that the client imports; see the table in README.md.
RDEPENDS:${PN} = "\
    ca-certificates \
    python3-click \
    python3-core \
    python3-compression \
    python3-crypt \
    python3-cryptography \
    python3-datetime \
    python3-difflib \
    python3-email \
    python3-io \
    python3-json \
    python3-logging \
    python3-math \
    python3-netclient \
    python3-resource \
    python3-syslog \
    python3-urllib3 \
"
# In newer releases, python3-core contains fcntl and this package does not exist.
RRECOMMENDS:${PN} = "python3-fcntl"

PACKAGECONFIG ??= ""
PACKAGECONFIG[terminal] = ",,,python3-msgpack python3-wsproto"

# To enable the timers in an image that has a mender.conf: SYSTEMD_AUTO_ENABLE:pn-mender-oneshot = "enable".
SYSTEMD_SERVICE:${PN} = "mender-oneshot-update.timer mender-oneshot-inventory.timer"
SYSTEMD_AUTO_ENABLE ?= "disable"
FILES:${PN} += "${systemd_system_unitdir}"

CONFFILES:${PN} = "${sysconfdir}/cron.d/mender-oneshot"
