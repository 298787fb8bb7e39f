################################################################################
#
# mender-oneshot
#
# Not built: based on Buildroot's documentation, but never built with it.
#
################################################################################

MENDER_ONESHOT_VERSION = 0.1.0
# The source tree that contains this file.
MENDER_ONESHOT_SITE = $(realpath $(BR2_EXTERNAL_MENDER_ONESHOT_PATH)/../../..)
MENDER_ONESHOT_SITE_METHOD = local
MENDER_ONESHOT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /build --exclude /dist --exclude /.venv
MENDER_ONESHOT_LICENSE = Apache-2.0
MENDER_ONESHOT_LICENSE_FILES = LICENSE
# The host's Python byte-compiles; it has the version of the target's.
MENDER_ONESHOT_DEPENDENCIES = host-python3

define MENDER_ONESHOT_INSTALL_TARGET_CMDS
	$(TARGET_MAKE_ENV) $(MAKE) -C $(@D) install DESTDIR=$(TARGET_DIR) PREFIX=/usr \
		PYTHON=/usr/bin/python3 COMPILE=$(HOST_DIR)/bin/python3
endef

# With systemd, Buildroot enables every unit unless a preset disables it.
define MENDER_ONESHOT_INSTALL_INIT_SYSTEMD
	mkdir -p $(TARGET_DIR)/usr/lib/systemd/system-preset
	echo 'disable mender-oneshot-*' > $(TARGET_DIR)/usr/lib/systemd/system-preset/50-mender-oneshot.preset
endef

$(eval $(generic-package))
