# Whether the firmware said that it checks what it runs, and the kernel does so, too.
set -eu
dmesg | grep 'secureboot: '
