# Files that were synced, and then writes without an end: the machine is switched off meanwhile.
[ "$CLIENT" = herd-0 ] && [ "$BOOT" = 1 ] || exit 0
set -eu
mkdir /mnt/scratch/kept
cd /mnt/scratch/kept
for number in 1 2 3 4 5 6 7 8; do
    dd if=/dev/urandom of="$number" bs=300k count=1 status=none
done
sha256sum ? >sums
sync
setsid sh -c '
    cd /mnt/scratch
    while :; do
        for number in 1 2 3 4; do
            dd if=/dev/zero of=busy-$number bs=1M count=2 conv=fsync status=none
        done
        rm busy-*
    done' >/dev/null 2>&1 &
# So that there is a journal to be replayed.
sleep 3
