# A machine has a root that it can't write; what belongs to it alone is in its memory.
set -eu
grep ' / nfs ro,' /proc/mounts
if touch /root/mark 2>/dev/null; then exit 1; fi
for folder in /var/log /var/spool /var/tmp /tmp; do
    grep "^tmpfs $folder tmpfs " /proc/mounts
    echo "$CLIENT" >"$folder/mark"
    [ "$(cat "$folder/mark")" = "$CLIENT" ]
done
[ "$(hostname)" = "$CLIENT" ]
echo "machine-id $(cat /etc/machine-id)"
# Services have their state below /var, such as that of logins; what the root has there is there too.
grep '^overlay /var overlay ' /proc/mounts
[ -d /var/lib/systemd/linger ]
[ -e /var/lib/dpkg/status ]
systemctl is-active systemd-logind
systemctl --failed --no-legend --plain
[ -z "$(systemctl --failed --no-legend --plain)" ]
