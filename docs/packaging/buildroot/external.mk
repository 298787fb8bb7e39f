include $(sort $(wildcard $(BR2_EXTERNAL_MENDER_ONESHOT_PATH)/package/*/*.mk))
