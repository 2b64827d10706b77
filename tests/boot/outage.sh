# The server is killed and started again, $OUTAGES times, while this writes to the root and reads from it.
set -eu
pid=$(cat /sys/block/nbd0/pid)
grep '^@cowherd-attach' "/proc/$pid/cmdline" >/dev/null
grep 'VmLck:.*[1-9]' "/proc/$pid/status"

is_over() {
    said=$(cowherd-attach nbd0 --status --json)
    case $said in
    *'"state":"attached"'*"\"outages\":$OUTAGES,"*) return 0 ;;
    *) return 1 ;;
    esac
}

verify() {
    fio --name=verify --directory=/root --size=6M --rw=randwrite --bs=4k --ioengine=libaio \
        --iodepth=8 --direct=1 --fsync=32 --randseed="$round" --verify=crc32c --verify_fatal=1 \
        --minimal "$@" >/dev/null
}

round=0
until is_over; do
    round=$((round + 1))
    [ "$round" -le 100 ]
    verify
done
verify
# What was acknowledged is at the server.
echo 3 >/proc/sys/vm/drop_caches
verify --verify_only
dd if=/dev/nbd0 of=/dev/null bs=1M count=16 iflag=direct status=none
if dmesg | grep -iE 'I/O error|BTRFS (error|warning)|lost page write'; then exit 1; fi
echo "$round rounds, $said"
