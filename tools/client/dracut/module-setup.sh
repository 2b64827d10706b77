#!/bin/bash
# Has the module nbd call attach-root for nbd-client: for names with a slash, partitions, and roots that
# outlive their server.

check() {
    require_binaries nbd-client blockdev /usr/lib/cowherd/attach-root || return 1
    return 0
}

depends() {
    echo nbd
}

install() {
    inst_multiple blockdev
    inst_multiple -o /usr/sbin/cowherd-attach modprobe
    local client
    client=$(find_binary nbd-client)
    inst "$client" /usr/lib/cowherd/nbd-client
    # What is there is not replaced.
    # shellcheck disable=SC2154 # dracut says where the new initramfs is.
    rm -f "$initdir$client"
    inst_script /usr/lib/cowherd/attach-root "$client"
}
