#!/bin/bash
# What the module nbd leaves out: names with a slash, and partitions.

check() {
    require_binaries nbd-client blockdev || return 1
    return 0
}

depends() {
    echo nbd
}

install() {
    inst_multiple blockdev
    # Before parse-nbdroot.sh, which is at 90.
    # shellcheck disable=SC2154 # dracut says where the module is.
    inst_hook cmdline 89 "$moddir/plain-name.sh"
    inst_hook initqueue/settled 50 "$moddir/rescan.sh"
}
