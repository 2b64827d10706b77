#!/bin/sh
# Has the kernel look for partitions, once the disk is there: it does not by itself.
if [ ! -e /tmp/cowherd-rescanned ] && nbd-client -check /dev/nbd0 >/dev/null 2>&1; then
    : >/tmp/cowherd-rescanned
    # There may be none, or one is in use already.
    blockdev --rereadpt /dev/nbd0 2>/dev/null || :
fi
