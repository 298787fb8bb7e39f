# mender-oneshot: to come
