# What is deleted and trimmed takes no room on the server any more.
[ "$CLIENT" = herd-0 ] && [ "$BOOT" = 1 ] || exit 0
set -eu
rm /mnt/scratch/verify.*
sync
fstrim -v /mnt/scratch
sync
