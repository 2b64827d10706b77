# A disk with a partition table and a name with a slash, attached as the initramfs attaches a root.
[ "$CLIENT" = herd-0 ] && [ "$BOOT" = 1 ] || exit 0
set -eu
modprobe nbd
nbd-client "$SERVER" /dev/nbd2 -N scratch@parts
# An MBR with one partition, of 4096 sectors from sector 2048 on.
printf '\200\0\0\0\203\0\0\0\0\010\0\0\0\020\0\0' |
    dd of=/dev/nbd2 bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of=/dev/nbd2 bs=1 seek=510 conv=notrunc,fsync status=none
nbd-client -d /dev/nbd2
/usr/lib/cowherd/attach-root "$SERVER" -N /scratch@parts /dev/nbd2 -persist
[ -b /dev/nbd2p1 ]
nbd-client -d /dev/nbd2
