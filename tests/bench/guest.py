# SPDX-License-Identifier: BSD-3-Clause
"""The same from inside a virtual machine: one disk for each peer, with an
I/O thread of its own; software emulation, since that runs everywhere."""

import copy
import os
import shlex
import socket
import subprocess
import time

import bench as bench_
import fio
import lab
import peers as peers_
from bench import say
from workloads import Workload

HERE = os.path.dirname(os.path.abspath(__file__))
BOOT_SECONDS = 90
WORKLOADS = [Workload("1M", "read", 1), Workload("1M", "read", 8),
             Workload("1M", "write", 8), Workload("4K", "read", 8),
             Workload("4K", "write", 8)]


class GuestError(Exception):
    pass


class Disk(peers_.Peer):
    """A disk of the guest; PEER makes and fills its image."""

    def __init__(self, ident, title, peer, luks=False):
        super().__init__(ident, title)
        self.peer, self.luks = peer, luks
        self.kind = peer.kind
        # Over NBD, by this plugin; the others are opened by QEMU.
        self.serves = isinstance(peer, peers_.Rbdcrypt)

    def make(self, bench):
        """A thin image."""
        self.bench = bench
        self.peer.prepare(bench)

    def prepare(self, bench):
        self.make(bench)
        self.peer.start()
        try:
            self.peer.fill()
        finally:
            self.peer.stop()

    def start(self):
        """Only what is served over NBD runs beside QEMU."""
        if self.serves:
            self.peer.begin()

    def stop(self):
        self.peer.stop()

    @property
    def pid(self):
        return self.peer.pid

    def blockdevs(self, number):
        """QEMU's nodes, the last of which is the disk."""
        node, disk = "n%d" % number, "d%d" % number
        if self.serves:
            below = "driver=nbd,server.type=unix,server.path=" \
                + self.peer.server.socket
        else:
            below = self.rbd()
        above = "driver=luks,key-secret=key" if self.luks else "driver=raw"
        return ["-blockdev", below + ",discard=unmap,node-name=" + node,
                "-blockdev", "%s,discard=unmap,file=%s,node-name=%s" % (
                    above, node, disk),
                "-object", "iothread,id=io%d" % number,
                "-device", "virtio-blk-pci,drive=%s,iothread=io%d" % (
                    disk, number)]

    def rbd(self):
        pool, image = self.peer.image.split("/")
        text = "driver=rbd,pool=%s,image=%s,conf=%s" % (
            pool, image, self.bench.pool.conf)
        if self.kind == "luks2":
            text += ",encrypt.format=luks2,encrypt.key-secret=key"
        return text


def disks(variants=()):
    """VARIANTS: peers of another part, which are a disk each as well."""
    return [
        Disk("guest-plain", "QEMU rbd plain",
             peers_.QemuNbd("guest-plain", "")),
        Disk("guest-luks", "QEMU LUKS over rbd",
             peers_.QemuNbdLuks1("guest-luks", ""), luks=True),
        Disk("guest-librbd", "QEMU rbd, librbd decrypts",
             peers_.QemuNbdLuks2("guest-librbd", "")),
        Disk("guest-nbd", "NBD to rbdcrypt LUKS2",
             peers_.Rbdcrypt("guest-nbd", "", "luks2")),
        Disk("guest-cinder", "NBD to rbdcrypt on QEMU LUKS1, openssl",
             peers_.Rbdcrypt("guest-cinder", "", "qemu-luks1",
                             parameters=["engine=openssl"])),
        *(Disk("guest-" + p.ident, "NBD to " + p.title, copy.copy(p))
          for p in variants)]


DRIVES = "abcdefghijklmnop"


def drive(number):
    return "/dev/vd" + DRIVES[number]


def kernel(bench):
    """The directory of what the guest boots."""
    peers_.program("qemu-system-x86_64")
    say("the guest's kernel and programs")
    directory = os.path.join(os.path.dirname(bench.directory), "guest")
    try:
        lab.run(os.path.join(HERE, "guest-image"), directory, timeout=300)
    except (AssertionError, subprocess.TimeoutExpired) as e:
        raise peers_.Missing(str(e).splitlines()[-1]) from e
    return directory


class Machine:
    """A running guest and its second serial port."""

    boot_seconds = BOOT_SECONDS

    def __init__(self, bench, image, chosen, extra=()):
        self.log = os.path.join(bench.directory, "guest.log")
        self.path = os.path.join(bench.directory, "guest.sock")
        if os.path.exists(self.path):
            os.unlink(self.path)
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max",
                "-m", "1024", "-display", "none", "-nodefaults",
                "-no-reboot", "-kernel", os.path.join(image, "vmlinuz"),
                "-initrd", os.path.join(image, "initramfs"),
                "-append", "console=ttyS0 panic=-1 quiet no_timer_check",
                "-serial", "file:" + self.log,
                "-chardev", "socket,id=c,server=on,wait=off,path="
                + self.path, "-serial", "chardev:c",
                "-object", "secret,id=key,file=" + bench.pool.passphrase]
        for number, disk in enumerate(chosen):
            argv += disk.blockdevs(number)
        argv += extra
        self.errors = open(self.log + ".qemu", "wb")
        self.process = subprocess.Popen(
            argv, env=bench.env, stdin=subprocess.DEVNULL,
            stdout=self.errors, stderr=self.errors,
            preexec_fn=peers_.die_with_us)
        self.buffer = b""
        self.port = None

    def trouble(self, what):
        text = []
        for path in (self.log + ".qemu", self.log):
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    text.append(f.read()[-1500:])
        return GuestError("the guest: %s\n%s" % (what, "\n".join(text)))

    def ended(self):
        """QEMU's exit status, once its port is closed; None: it runs."""
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def connect(self):
        self.attach()
        self.until("ready", self.boot_seconds)
        return self

    def attach(self):
        def answers():
            if self.process.poll() is not None:
                raise self.trouble("QEMU ended with status %d"
                                   % self.process.returncode)
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(self.path)
            except OSError:
                port.close()
                return None
            return port
        self.port = lab.await_(answers, 30, "QEMU's serial port")

    def until(self, status, seconds):
        """What comes before the line "=STATUS"; any status if None: then
        (status, text)."""
        end = time.monotonic() + seconds
        while True:
            at = self.buffer.find(b"=")
            while at > 0 and self.buffer[at - 1:at] != b"\n":
                at = self.buffer.find(b"=", at + 1)
            newline = self.buffer.find(b"\n", at) if at >= 0 else -1
            if newline >= 0:
                text = self.buffer[:at].decode(errors="replace")
                word = self.buffer[at + 1:newline].decode().strip()
                self.buffer = self.buffer[newline + 1:]
                if status is None:
                    return int(word), text
                if word == status:
                    return text
                continue
            self.port.settimeout(max(end - time.monotonic(), 0.01))
            try:
                more = self.port.recv(65536)
            except socket.timeout:
                raise self.trouble("no answer in %g s" % seconds) from None
            except ConnectionResetError:
                more = b""
            if not more:
                raise self.trouble("QEMU ended with status %s"
                                   % self.ended())
            self.buffer += more

    def call(self, argv, seconds):
        self.port.sendall(shlex.join(argv).encode() + b"\n")
        status, text = self.until(None, seconds)
        if status:
            raise self.trouble("%s: status %d: %s" % (
                argv[0], status, text[-600:]))
        return text

    def stop(self):
        if self.port:
            try:
                self.port.sendall(b"poweroff\n")
                self.process.wait(20)
            except (OSError, subprocess.TimeoutExpired):
                pass
            self.port.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
        self.errors.close()


class Booted:
    """A part whose peers are the disks of a guest: one boot for each
    round."""

    machine = None

    def needs(self):
        for d in self.peers:
            d.peer.needs()
        self.kernel = kernel(self.bench)

    def start(self):
        for d in self.peers:
            d.start()
        begin = time.monotonic()
        self.machine = Machine(self.bench, self.kernel, self.peers)
        self.machine.connect()
        say("the guest booted in %.1f s" % (time.monotonic() - begin))

    def stop(self):
        if self.machine:
            self.machine.stop()
            self.machine = None
        for d in self.peers:
            d.stop()

    def remove(self):
        for d in self.peers:
            self.bench.pool.remove(d.peer.image)


class Guest(Booted, bench_.Cells):
    """The table of a guest."""

    section = "guest"
    OVERHEAD = 1.2

    def __init__(self, bench, names, variants=()):
        super().__init__(bench, disks(variants),
                         [w for w in WORKLOADS if w.name in names])

    def needs(self):
        if len(self.peers) > len(DRIVES):
            raise peers_.Missing("more than %d disks" % len(DRIVES))
        super().needs()

    def prepare(self):
        for d in self.peers:
            say("a disk for the guest, written in full: " + d.title)
            d.prepare(self.bench)

    def start(self):
        super().start()
        for number in range(len(self.peers)):
            # Until a flush librbd's cache writes through.
            self.machine.call(
                ["dd", "if=" + drive(number), "of=" + drive(number), "bs=4k",
                 "count=16", "conv=notrunc,fsync"], 60)

    def measure(self, disk, workload, turn, osds):
        number = self.peers.index(disk)
        args = fio.command(
            ["--name=job", "--ioengine=libaio", "--direct=1",
             "--filename=" + drive(number),
             *workload.fio(self.bench.image, turn, self.bench.seconds)])
        pids = {"qemu_cpu": self.machine.process.pid}
        if disk.pid:
            pids["server_cpu"] = disk.pid
        before = {k: fio.cpu_seconds(p) for k, p in pids.items()}
        osd = sum(map(fio.cpu_seconds, osds))
        text = self.machine.call(args, self.bench.seconds + 90)
        sample = fio.sides(text)
        for k, p in pids.items():
            sample[k] = fio.cpu_seconds(p) - before[k]
        if osds:
            sample["osd_cpu"] = sum(map(fio.cpu_seconds, osds)) - osd
        return sample
