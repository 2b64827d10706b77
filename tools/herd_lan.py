"""The network in which tools/boot-in-qemu boots machines, and who is in it but them."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time

# What is not of an export. There is nobody who could have had a lock before it started.
GANESHA = """NFS_CORE_PARAM {{
    Protocols = 3, 4;
    mount_path_pseudo = true;
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
NFSv4 {{
    Graceless = true;
    RecoveryRoot = {home};
}}
"""


def run(*command):
    subprocess.run(list(map(str, command)), check=True)


class Network:
    """A namespace with a bridge, which goes with this object."""

    def __init__(self, clients):
        self.name = f"herd-{os.getpid()}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "lan0", "type", "bridge")
        self.ip("addr", "add", "10.77.0.1/24", "dev", "lan0")
        self.ip("link", "set", "lan0", "up")
        for number in range(clients):
            run(*self.inside("ip", "tuntap", "add", f"tap{number}", "mode", "tap"))
            self.ip("link", "set", f"tap{number}", "master", "lan0", "up")

    def ip(self, *command):
        run("ip", "-n", self.name, *command)

    def sent_to(self, number):
        """Bytes that a machine was sent."""
        said = subprocess.run(
            ["ip", "-n", self.name, "-s", "-j", "link", "show", f"tap{number}"], check=True,
            capture_output=True, text=True,
        )
        return json.loads(said.stdout)[0]["stats64"]["tx"]["bytes"]

    def inside(self, *command):
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def end(self):
        run("ip", "netns", "del", self.name)


class Router:
    """Says that there is no IPv6 router: iPXE waits for 13 seconds for one, at full speed."""

    def __init__(self, network):
        self.process = subprocess.Popen(
            network.inside(sys.executable, __file__), stdin=subprocess.DEVNULL,
        )

    def end(self):
        self.process.terminate()
        self.process.wait()


def advertise():
    """Answers those who ask for a router, as in RFC 4861 4.2: "a lifetime of 0 indicates that the
    router is not a default router"."""
    lan = socket.if_nametoindex("lan0")
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as here:
        routers = socket.inet_pton(socket.AF_INET6, "ff02::2") + struct.pack("@I", lan)
        here.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, routers)
        for limit in (socket.IPV6_MULTICAST_HOPS, socket.IPV6_UNICAST_HOPS):
            here.setsockopt(socket.IPPROTO_IPV6, limit, 255)
        while True:
            asked, _ = here.recvfrom(1500)
            if asked[0] == 133:
                answer = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 0, 0, 0)
                try:
                    here.sendto(answer, ("ff02::1", 0, 0, lan))
                except OSError:
                    # The first machine asks while our own address is new: it asks again.
                    pass


class OtherServer:
    """dnsmasq as the DHCP server of the network, on a host of its own."""

    def __init__(self, network, clients, home):
        self.name = f"{network.name}-dhcp"
        run("ip", "netns", "add", self.name)
        network.ip("link", "add", "other0", "type", "veth", "peer", "lan0", "netns", self.name)
        network.ip("link", "set", "other0", "master", "lan0", "up")
        run("ip", "-n", self.name, "addr", "add", "10.77.0.2/24", "dev", "lan0")
        run("ip", "-n", self.name, "link", "set", "lan0", "up")
        hosts = [f"--dhcp-host={client.mac},{client.address}" for client in clients]
        self.log = open(home / "dnsmasq.log", "wb")
        self.server = subprocess.Popen(
            [
                "ip", "netns", "exec", self.name, "dnsmasq", "--keep-in-foreground", "--port=0",
                "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--interface=lan0",
                f"--dhcp-leasefile={home}/dnsmasq.leases", "--user=root", "--pid-file",
                "--dhcp-range=10.77.0.200,10.77.0.250", *hosts,
            ],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )

    def end(self):
        self.server.terminate()
        self.server.wait()
        self.log.close()
        run("ip", "netns", "del", self.name)


class Server:
    """cowherd, which can be killed and started again."""

    def __init__(self, command, log):
        self.command, self.log = command, log

    def start(self):
        with open(self.log, "ab") as out:
            self.server = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def be_away(self, outages, addresses):
        """Is killed, and stays away for so many seconds each time; in between it is there until all
        these machines are back, and a little longer."""
        for outage in outages:
            time.sleep(5)
            self.server.kill()
            self.server.wait()
            time.sleep(outage)
            before = self.log.stat().st_size
            self.start()
            self.wait_for(addresses, before)

    def wait_for(self, addresses, since):
        """Waits until machines have connected, a minute at most."""
        end = time.time() + 60
        while time.time() < end:
            said = self.log.read_bytes()[since:].decode(errors="replace")
            if all(re.search(rf" {re.escape(one)}:\d+ uses ", said) for one in addresses):
                return
            time.sleep(0.2)

    def end(self):
        """Its exit code."""
        self.server.terminate()
        return self.server.wait()


class NfsServer:
    """nfs-ganesha on the server's host, with what cowherd says that it has to export."""

    def __init__(self, network, program, home):
        exports = subprocess.run(
            network.inside(
                program, "grub", "--exports", "ganesha", "--config", home / "cowherd.toml"
            ),
            check=True, stdout=subprocess.PIPE, text=True,
        )
        config = home / "ganesha.conf"
        config.write_text(GANESHA.format(home=home) + exports.stdout)
        # Its sockets in /run are not those of this host.
        script = (
            "mount -t tmpfs tmpfs /run && rpcbind && exec ganesha.nfsd -F"
            f" -f {config} -L {home}/ganesha.log -N NIV_EVENT -p /run/ganesha.pid"
        )
        # What is started there ends with its first process, rpcbind too.
        alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with open(home / "nfs.log", "wb") as out:
            self.server = subprocess.Popen(
                network.inside(*alone, "sh", "-c", script),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )

    def end(self):
        # All that is in its namespace goes with it.
        self.server.kill()
        self.server.wait()


if __name__ == "__main__":
    advertise()
