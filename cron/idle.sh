# idle KIND: succeed if a `mender-oneshot run` would find nothing due. KIND is all, update or inventory. A part of a
# shell script, so that a timer or cron need not start a program to learn this. idle.py explains the files.
idle() {
    conf=${MENDER_CONF_DIR:-/etc/mender}
    data=${MENDER_DATASTORE_DIR:-/var/lib/mender}
    since=${MENDER_RUN_DIR:-/run/mender-oneshot}$data/$1.since
    until=${MENDER_RUN_DIR:-/run/mender-oneshot}$data/$1.until
    # The time stamp of a new process's directory is now. For bash, every file is newer than a missing one.
    [ -e "$since" ] && [ "$until" -nt "/proc/$$" ] && [ "/proc/$$" -nt "$since" ] || return 1
    for file in "$conf" "$conf/mender.conf" "$data" "$data/mender.conf" "$data/mender-oneshot.json"; do
        [ ! "$file" -nt "$since" ] || return 1
    done
}
