#!/bin/sh
# Install the client or the development server, or remove it. make calls this for the targets of the same names.
#
# Variables, as packagers know them: DESTDIR, PREFIX, SYSCONFDIR, UNITDIR, ZSHDIR, FISHDIR and PYTHON, the interpreter
# on the device. COMPILE is the interpreter that byte-compiles here and now; COMPILE=no leaves that to the packager.
# WITHOUT names parts that are left out: systemd, cron, man, doc, bash, zsh, fish.
set -eu
cd "$(dirname "$0")/../.."

destdir=${DESTDIR-}
prefix=${PREFIX-/usr/local}
python=${PYTHON:-/usr/bin/python3}
compile=${COMPILE:-$python}

share=$prefix/share/mender-oneshot
launcher=$prefix/bin/mender-oneshot
devserver_share=$prefix/share/mender-oneshot-devserver
devserver_launcher=$prefix/bin/mender-oneshot-devserver
devserver_page=man1/mender-oneshot-devserver.1
cron_file=$destdir${SYSCONFDIR-/etc}/cron.d/mender-oneshot
units=$destdir${UNITDIR-$prefix/lib/systemd/system}
man=$destdir$prefix/share/man
doc=$destdir$prefix/share/doc/mender-oneshot
bash_completions=$destdir$prefix/share/bash-completion/completions
zsh_completions=$destdir${ZSHDIR-$prefix/share/zsh/site-functions}
# fish searches /usr/local/share only if XDG_DATA_DIRS names it.
case $prefix in
    /usr/local) fishdir=${SYSCONFDIR-/etc}/fish/completions ;;
    *) fishdir=$prefix/share/fish/vendor_completions.d ;;
esac
fish_completions=$destdir${FISHDIR-$fishdir}

for part in ${WITHOUT-}; do
    case $part in
        systemd | cron | man | doc | bash | zsh | fish) ;;
        *)
            echo "WITHOUT=$part is not known; it may be: systemd, cron, man, doc, bash, zsh, fish." >&2
            exit 64
            ;;
    esac
done

with() { # PART
    case " ${WITHOUT-} " in
        *" $1 "*) return 1 ;;
    esac
}

# `install -D` creates missing directories and keeps the mode of existing ones, under any umask.
put() { # MODE SOURCE FILE
    install -D -m "$1" "$2" "$3"
}

# Replace a file atomically, because a timer may read it at any moment.
replace() { # MODE FILE, the content on stdin
    put "$1" /dev/null "$2.new"
    cat > "$2.new"
    mv -f "$2.new" "$2"
}

# The same for a file of the repository that names the launcher.
replace_with_prefix() { # SOURCE FILE
    text=$(sed -E "s@/usr/local/(bin|share)/@$prefix/\1/@g" "$1")
    printf '%s\n' "$text" | replace 644 "$2"
}

install_package() { # PLACE
    rm -rf "$destdir$1/mender_oneshot"
    for file in mender_oneshot/*.py mender_oneshot/*/*.py; do
        case $file in
            mender_oneshot/devserver/*) ;; # for a desk, not for a device
            mender_oneshot/json_schema.py | mender_oneshot/json_members.py) ;; # for documents and tests
            *) put 644 "$file" "$destdir$1/$file" ;;
        esac
    done
    for file in mender_oneshot/device_scripts/*; do
        put 755 "$file" "$destdir$1/$file"
    done
    compile_package "$1"
}

compile_package() { # PLACE
    [ "$compile" = no ] || (
        umask 022
        "$compile" -I -m compileall -q -f --invalidation-mode unchecked-hash \
            -s "$destdir$1" -p "$1" "$destdir$1/mender_oneshot"
    )
}

install_completions() { # PROGRAM
    if with bash; then put 644 "docs/completions/$1.bash" "$bash_completions/$1"; fi
    if with zsh; then put 644 "docs/completions/$1.zsh" "$zsh_completions/_$1"; fi
    if with fish; then put 644 "docs/completions/$1.fish" "$fish_completions/$1.fish"; fi
}

uninstall_completions() { # PROGRAM
    rm -f "$bash_completions/$1" "$zsh_completions/_$1" "$fish_completions/$1.fish"
}

check_python() {
    [ "$compile" = no ] || "$compile" -I -c 'import sys; sys.exit(sys.version_info < (3, 11) and
        "Python 3.11 or newer is needed; name one with PYTHON= and COMPILE=.")'
}

client_pages() {
    for page in docs/man/*.[157]; do
        [ "$page" = docs/man/mender-oneshot-devserver.1 ] || echo "$page"
    done
}

install_client() {
    check_python

    # An image has the package in one place. A device that installs over itself has two, and fills the one that its
    # launcher does not use: a run in progress keeps its files until the next installation.
    place=$share
    if [ -z "$destdir" ] && grep -Fqs "\"$share\"" "$launcher"; then
        place=$share/other
    fi
    install_package "$place"

    # -I ignores the caller's environment and directory; -S skips site, because a tick with nothing due needs no
    # libraries; -Xutf8 makes the locale irrelevant. main() flushes stdout and stderr, so the interpreter need not
    # clear its memory before it exits.
    replace 755 "$destdir$launcher" << END
#!$python -ISXutf8
import os
import sys
sys.path.insert(0, "$place")
from mender_oneshot.__main__ import main
os._exit(main())
END

    if with systemd; then install_units; fi
    if with systemd || with cron; then replace 644 "$destdir$share/idle.sh" < cron/idle.sh; fi
    if with cron; then install_cron; fi
    if with man; then
        for page in $(client_pages); do
            replace_with_prefix "$page" "$man/man${page##*.}/${page##*/}"
        done
    fi
    install_completions mender-oneshot
    if with doc; then install_documents; fi
}

install_units() {
    for unit in systemd-timers/*.service systemd-timers/*.timer; do
        replace_with_prefix "$unit" "$units/${unit##*/}"
    done
}

install_cron() {
    for file in cron/*; do
        case $file in
            cron/README.md | cron/mender-oneshot | cron/idle.sh) ;;
            *) replace_with_prefix "$file" "$destdir$share/$file" ;;
        esac
    done
    # A line that was enabled stays enabled.
    if [ -e "$cron_file" ]; then
        echo "$cron_file is there already, and left as it is."
    else
        replace_with_prefix cron/mender-oneshot "$cron_file"
    fi
}

# The documents for users, with the layout of the repository, so that their links work.
install_documents() {
    rm -rf "$doc"
    put 644 LICENSE "$doc/LICENSE"
    for file in docs/examples/*; do
        put 644 "$file" "$doc/examples/${file##*/}"
    done
    for file in docs/pictures/*.svg; do
        put 644 "$file" "$doc/$file"
    done
    ln -s ../examples "$doc/docs/examples"
    pages="README.md cron/README.md systemd-timers/README.md"
    for page in $pages docs/*.md docs/decisions/*.md docs/reference/json.md docs/reference/installation-cases.md; do
        case $page in
            docs/architecture.md | docs/contributing.md) ;; # for work on the code
            *) put 644 "$page" "$doc/$page" ;;
        esac
    done
    find "$doc" -name '*.md' | while read -r page; do
        unlink_missing "$page"
    done
}

# Replace each link of a page to a file that is not installed by the text of the link.
unlink_missing() { # PAGE
    grep -o '](\([^):]*\))' "$1" | sed 's/^](//; s/[)#].*//' | sort -u | while read -r target; do
        if [ ! -e "${1%/*}/$target" ]; then
            text=$(sed -e ':join' -e 'N' -e '$!b join' \
                -e "s|!\{0,1\}\[\([^][]*\)\]($target\(#[^)]*\)\{0,1\})|\1|g" "$1")
            printf '%s\n' "$text" | replace 644 "$1"
        fi
    done
}

uninstall_client() {
    rm -f "$destdir$launcher" "$cron_file"
    uninstall_completions mender-oneshot
    rm -rf "$destdir$share" "$doc"
    for unit in systemd-timers/*.service systemd-timers/*.timer; do
        rm -f "$units/${unit##*/}"
    done
    for page in $(client_pages); do
        rm -f "$man/man${page##*.}/${page##*/}"
    done
    [ -n "$destdir" ] || echo "Kept the configuration in /etc/mender, the scripts in /usr/share/mender, and the" \
        "device key and the state in /var/lib/mender; remove them if you do not need them."
}

# The development server needs no file of the client, so that a desk can have either one or both.
install_devserver() {
    check_python
    rm -rf "$destdir$devserver_share"
    for file in mender_oneshot/__init__.py mender_oneshot/devserver/*.py mender_oneshot/devserver/web/*; do
        put 644 "$file" "$destdir$devserver_share/$file"
    done
    compile_package "$devserver_share"
    replace_with_prefix "docs/man/${devserver_page##*/}" "$man/$devserver_page"
    install_completions mender-oneshot-devserver
    replace 755 "$destdir$devserver_launcher" << END
#!$python -IXutf8
import sys
sys.path.insert(0, "$devserver_share")
from mender_oneshot.devserver.__main__ import main
sys.exit(main())
END
}

uninstall_devserver() {
    rm -f "$destdir$devserver_launcher" "$man/$devserver_page"
    uninstall_completions mender-oneshot-devserver
    rm -rf "$destdir$devserver_share"
}

case ${1-} in
    install) install_client ;;
    uninstall) uninstall_client ;;
    install-devserver) install_devserver ;;
    uninstall-devserver) uninstall_devserver ;;
    *)
        echo "Usage: install.sh install|uninstall|install-devserver|uninstall-devserver" >&2
        exit 64
        ;;
esac
