"""A machine of tools/boot-in-qemu: QEMU without a disk, its console, and the scripts that it runs."""

import base64
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

OVMF = Path("/usr/share/OVMF")
PROCESSORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64"],
}


def has_kvm():
    """Whether KVM boots from a network card: on some hosts it is there, and its first boot hangs."""
    command = ["qemu-system-x86_64", *PROCESSORS["kvm"], "-machine", "q35,graphics=off", "-m", "128",
               "-display", "none", "-nodefaults", "-boot", "n", "-serial", "stdio",
               "-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as machine:
        timer = threading.Timer(5, machine.kill)
        timer.start()
        is_ready = any(b"initialising devices...ok" in line for line in machine.stdout)
        timer.cancel()
        machine.kill()
    return is_ready


class Client:
    """One machine."""

    def __init__(self, number, firmware, overlay, home, accel):
        self.number, self.firmware, self.overlay = number, firmware, overlay
        self.mac = f"52:54:00:77:00:{number + 0x10:02x}"
        self.address = f"10.77.0.{number + 10}"
        self.name = f"herd-{number}"
        self.console = home / f"console-{number}.log"
        self.port = home / f"port-{number}"
        self.home = home
        self.processor = PROCESSORS[accel]

    def config(self):
        return (
            f'[client.{self.name}]\nmac = "{self.mac}"\naddress = "{self.address}"\n'
            f'overlay = "{self.overlay}"\n'
        )

    def switch_on(self, network, memory):
        card = f"virtio-net-pci,netdev=n,mac={self.mac}"
        firmware = []
        machine = "q35"
        if self.firmware != "bios":
            kind = "4M.ms" if self.firmware == "uefi-secure" else "4M"
            variables = self.home / f"vars-{self.number}.fd"
            shutil.copy(OVMF / f"OVMF_VARS_{kind}.fd", variables)
            code = OVMF / f"OVMF_CODE_{kind}.fd"
            drive = "if=pflash,format=raw"
            firmware = ["-drive", f"{drive},readonly=on,file={code}"]
            firmware += ["-drive", f"{drive},file={variables}"]
            card += ",romfile="
        if self.firmware == "uefi-http":
            for version in (4, 6):
                option = f"name=opt/org.tianocore/IPv{version}PXESupport,string=n"
                firmware += ["-fw_cfg", option]
        if self.firmware == "uefi-secure":
            machine = "q35,smm=on"
            firmware += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        self.console.write_bytes(b"")
        self.shown = 0
        self.begun = time.time()
        self.log = open(self.home / f"qemu-{self.number}.log", "wb")
        self.machine = subprocess.Popen(
            network.inside(
                "qemu-system-x86_64", *self.processor,
                "-machine", machine, "-m", memory, "-display", "none", "-monitor", "none",
                "-no-reboot", "-boot", "n", *firmware,
                "-netdev", f"tap,id=n,ifname=tap{self.number},script=no,downscript=no",
                "-device", card, "-device", "virtio-rng-pci", "-serial", f"file:{self.console}",
                "-serial", f"unix:{self.port},server=on,wait=off",
            ),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        self.up_after = None

    def processor_seconds(self):
        """What this boot has taken of the host's processors."""
        try:
            words = Path(f"/proc/{self.machine.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def new_lines(self):
        """The whole lines that are on the console since this was asked last, without colours."""
        new = self.console.read_bytes()[self.shown:]
        whole = new[:new.rfind(b"\n") + 1]
        self.shown += len(whole)
        plain = re.sub(rb"\x1b(\[[0-9;?]*[a-zA-Z]|[()].|[c-z78=>])|[\x00-\x08\x0b-\x1f]", b"", whole)
        return [line for line in plain.decode(errors="replace").split("\n") if line.strip()]

    def look(self):
        """What the console says of the system, once it is up and can be logged in to."""
        console = self.console.read_bytes()
        said = re.search(rb"UP host=\S+ boots=\d+ root=\S+ kernel=\S+", console)
        if not said or b" login: " not in console:
            return None
        if self.up_after is None:
            self.up_after = time.time() - self.begun
        return said.group().decode()

    def do(self, script, boot, patience, outages=0):
        """Runs a script there; its exit code, and what it said."""
        before = f"export CLIENT={self.name} BOOT={boot} SERVER=10.77.0.1 OUTAGES={outages}\n"
        text = base64.b64encode((before + script).encode()).decode()
        pieces = [text[at:at + 1000] for at in range(0, len(text), 1000)]
        said = b""
        try:
            with socket.socket(socket.AF_UNIX) as port:
                port.settimeout(patience)
                port.connect(str(self.port))
                for piece in [*pieces, ""]:
                    port.sendall(piece.encode() + b"\n")
                    end = rb"MORE\n$" if piece else rb"END (\d+)\n$"
                    said = b""
                    while not (found := re.search(end, said)):
                        more = port.recv(65536)
                        if not more:
                            return 255, said.decode(errors="replace") + "\n(the machine went away)"
                        said += more.replace(b"\r", b"")
            return int(found[1]), said[:found.start()].decode(errors="replace")
        except OSError as error:
            return 255, said.decode(errors="replace") + f"\n({error})"

    def is_running(self):
        return self.machine.poll() is None

    def shut_down(self, boot, patience):
        """Has the system shut down and begin anew; whether it came that far."""
        self.do("systemctl reboot --no-block", boot, patience)
        try:
            # QEMU ends where the machine would begin anew.
            self.machine.wait(patience)
            return True
        except subprocess.TimeoutExpired:
            return False

    def switch_off(self):
        self.machine.kill()
        self.machine.wait()
        self.log.close()
