# Another kernel, as a machine's admin installs it.
[ "$CLIENT" = herd-1 ] && [ "$BOOT" = 1 ] || exit 0
set -eu
DEBIAN_FRONTEND=noninteractive dpkg -i /var/cache/spare-kernel/*.deb >/dev/null
ls -l /vmlinuz /initrd.img
sync
