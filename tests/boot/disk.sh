# A second disk through the kernel's own client and four connections: a file system, verified writes.
[ "$CLIENT" = herd-0 ] || exit 0
set -eu
modprobe nbd
nbd-client "$SERVER" /dev/nbd1 -N scratch@work -C 4
mkdir -p /mnt/scratch
if [ "$BOOT" = 1 ]; then
    mkfs.ext4 -q /dev/nbd1
    mount /dev/nbd1 /mnt/scratch
    fio --name=verify --directory=/mnt/scratch --size=24M --numjobs=2 --ioengine=libaio --direct=1 \
        --iodepth=16 --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 \
        --end_fsync=1 --group_reporting --minimal >/dev/null
    # Again from the disk, by another process.
    echo 3 >/proc/sys/vm/drop_caches
    fio --name=verify --directory=/mnt/scratch --size=24M --numjobs=2 --ioengine=libaio --direct=1 \
        --iodepth=16 --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 \
        --verify_only --group_reporting --minimal >/dev/null
else
    # The machine was ended in the middle of its writes.
    dmesg --clear
    mount /dev/nbd1 /mnt/scratch
    dmesg | grep 'EXT4-fs (nbd1): recovery complete'
    (cd /mnt/scratch/kept && sha256sum --check --quiet sums)
    umount /mnt/scratch
    e2fsck -f -n /dev/nbd1
    nbd-client -d /dev/nbd1
fi
