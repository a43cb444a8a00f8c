# SPDX-License-Identifier: BSD-3-Clause
"""Who is measured: programs that serve or read an image, how they are
started and ended."""

import ctypes
import functools
import glob
import json
import os
import re
import shutil
import signal
import subprocess

import nbd

import fio
import lab
from workloads import MIB

START_SECONDS = 30
STOP_SECONDS = 40
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
# What a library's user chooses; not names, addresses and keys.
SETTINGS = "rbd_|rados_|librados_|objecter_|ms_|debug_|osd_"


class Missing(Exception):
    """What this machine has not."""


@functools.lru_cache
def lingers(plugin):
    """Does this plugin close a volume that waits for its turn?  Older ones do
    not, and do not know the parameter."""
    return b"linger=" in lab.run("nbdkit", plugin, "--help").stdout


def program(name):
    if not shutil.which(name):
        raise Missing("%s is not installed" % name)


def tcmalloc():
    found = sorted(glob.glob("/usr/lib/*/libtcmalloc.so.4"))
    if not found:
        raise Missing("libtcmalloc is not installed")
    return found[0]


def die_with_us():
    # In the child of a program with threads: nothing but the call.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """An NBD server on a Unix socket, in the foreground."""

    def __init__(self, argv, directory, name, env):
        self.socket = os.path.join(directory, name + ".sock")
        self.pidfile = os.path.join(directory, name + ".pid")
        self.log = os.path.join(directory, name + ".log")
        for stale in (self.socket, self.pidfile):
            if os.path.exists(stale):
                os.unlink(stale)
        self.argv = [a.replace("@SOCKET@", self.socket)
                     .replace("@PIDFILE@", self.pidfile) for a in argv]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=env, preexec_fn=die_with_us)

    @property
    def pid(self):
        return self.process.pid

    @property
    def uri(self):
        return "nbd+unix:///?socket=" + self.socket

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read().strip()

    def ready(self):
        def listens():
            if self.process.poll() is not None:
                raise RuntimeError("%s ended with status %d: %s" % (
                    " ".join(self.argv), self.process.returncode,
                    self.text()))
            return os.path.exists(self.pidfile) \
                and os.path.getsize(self.pidfile)
        lab.await_(listens, START_SECONDS, self.argv[0] + " listens")
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        for stale in (self.socket, self.pidfile):
            if os.path.exists(stale):
                os.unlink(stale)


class Peer:
    """One column.  An image of its own, made once; a server, if it has
    one, started anew for each round."""

    kind = "plain"  # of its image; None: it has none
    connections = True  # can a client have several?
    writes_only = False  # its reads are those of another column

    def __init__(self, ident, title, without=None):
        self.ident, self.title = ident, title
        self.without = without  # a feature that its image has not
        self.image = self.server = None
        self.own_cpu = None  # see fio.measure

    def needs(self):
        """Raises Missing."""

    def prepare(self, bench):
        self.bench = bench
        if self.kind:
            self.image = bench.pool.make(self.kind, bench.image)
        if self.without:
            bench.pool.cluster.rbd("feature", "disable", self.image,
                                   self.without)

    @property
    def pid(self):
        return self.server and self.server.pid

    def client_env(self):
        """A connection begins with a flush: see preload.c."""
        env = dict(self.bench.env)
        if self.bench.preload:
            env["LD_PRELOAD"] = self.bench.preload
        return env

    def argv(self):
        raise NotImplementedError

    def server_env(self):
        return self.bench.env

    def begin(self):
        self.server = Server(self.argv(), self.bench.directory, self.ident,
                             self.server_env())
        return self.server.ready()

    def start(self):
        self.begin()
        self.prime()

    def prime(self):
        """A write and a flush: librbd's cache writes through before it
        has seen one."""
        with open(self.bench.pool.content(self.bench.image), "rb") as f:
            data = f.read(MIB)
        h = nbd.NBD()
        h.connect_uri(self.server.uri)
        h.pwrite(data, 0)
        h.flush()
        h.shutdown()

    def flush(self):
        h = nbd.NBD()
        h.connect_uri(self.server.uri)
        h.flush()
        h.shutdown()

    def memory(self):
        """What the server holds at the end of a round, in MiB."""
        return self.pid and {
            "peak": fio.status_number(self.pid, "VmHWM") / 1024,
            "steady": fio.status_number(self.pid, "VmRSS") / 1024}

    def stop(self):
        if self.server:
            self.server.stop()
            self.server = None

    def filler(self):
        """A peer whose server fills this one's image."""
        return self

    def fill(self):
        lab.run("nbdcopy", "--flush",
                self.bench.pool.content(self.bench.image), self.server.uri,
                timeout=600)

    def engine(self):
        return ["--ioengine=nbd", "--uri=" + self.server.uri]


class QemuNbd(Peer):
    def needs(self):
        program("qemu-nbd")
        if not glob.glob("/usr/lib/*/qemu/block-rbd.so"):
            raise Missing("QEMU's rbd driver (qemu-block-extra) is not "
                          "installed")

    def source(self, prefix=""):
        pool, image = self.image.split("/")
        return ",".join(prefix + part for part in (
            "driver=rbd", "pool=" + pool, "image=" + image,
            "conf=" + self.bench.pool.conf))

    def argv(self):
        return ["qemu-nbd", "--persistent", "--shared=16",
                "--socket=@SOCKET@", "--pid-file=@PIDFILE@",
                "--object",
                "secret,id=key,file=" + self.bench.pool.passphrase,
                "--image-opts", self.source()]


class QemuNbdLuks2(QemuNbd):
    kind = "luks2"

    def source(self, prefix=""):
        return super().source(prefix) + \
            ",%sencrypt.format=luks2,%sencrypt.key-secret=key" % (
                prefix, prefix)


class QemuNbdLuks1(QemuNbd):
    kind = "qemu-luks1"

    def source(self, prefix=""):
        return "driver=luks,key-secret=key," + super().source("file.")


class Nbdkit(Peer):
    """nbdkit and what it serves."""

    preload = None
    variables = {}  # of its environment; BENCH_SNDBUF: see preload.c

    def needs(self):
        program("nbdkit")
        if self.preload == "tcmalloc":
            tcmalloc()

    def server_env(self):
        env = dict(self.bench.env, **self.variables)
        some = [tcmalloc()] if self.preload == "tcmalloc" else []
        if "BENCH_SNDBUF" in self.variables:
            some.append(self.bench.preload)
        if some:
            env["LD_PRELOAD"] = " ".join(some)
        return env

    def options(self):
        return []

    def served(self):
        raise NotImplementedError

    def argv(self):
        return ["nbdkit", "-f", "-U", "@SOCKET@", "-P", "@PIDFILE@",
                *self.options(), *self.served()]


class Null(Nbdkit):
    """The hop alone."""

    kind = None

    def served(self):
        return ["null", "size=%d" % self.bench.image]


class Memory(Null):
    def served(self):
        return ["memory", "size=%d" % self.bench.image]

    def start(self):
        super().start()
        self.fill()


class Rbdcrypt(Nbdkit):
    """This plugin.  PLUGIN: a build of it, else the one under test."""

    def __init__(self, ident, title, kind, plugin=None, preload=None,
                 parameters=(), threads=None, variables=None,
                 writes_only=False):
        super().__init__(ident, title)
        self.variables, self.writes_only = variables or {}, writes_only
        self.kind, self.plugin, self.preload = kind, plugin, preload
        self.parameters, self.threads = list(parameters), threads

    def options(self):
        return ["-t", self.threads] if self.threads else []

    def key(self):
        return "none" if self.kind == "plain" \
            else "file:" + self.bench.pool.passphrase

    def served(self, *more):
        plugin = self.plugin or self.bench.plugin
        stay = ["linger=-1"] if lingers(plugin) else []
        return [plugin, self.image,
                "key=" + self.key(), "conf=" + self.bench.pool.conf,
                "audit=none", *stay, *self.parameters, *more]


class LuksFilter(Rbdcrypt):
    """nbdkit's own decryption, in front of this plugin."""

    def __init__(self, ident, title):
        super().__init__(ident, title, "qemu-luks1")

    def needs(self):
        super().needs()
        if not glob.glob("/usr/lib/*/nbdkit/filters/nbdkit-luks-filter.so"):
            raise Missing("nbdkit's luks filter is not installed")

    def filler(self):
        # The same format, written 40 times as fast.
        peer = QemuNbdLuks1(self.ident, self.title)
        peer.bench, peer.image = self.bench, self.image
        return peer

    def options(self):
        return ["--filter=luks"]

    def key(self):
        return "none"

    def served(self, *more):
        return super().served("passphrase=+" + self.bench.pool.passphrase)


class FioRbd(Peer):
    """librbd without NBD, inside fio.  OURS: with the plugin's settings
    and tcmalloc."""

    connections = False

    def __init__(self, ident, title, ours=False):
        super().__init__(ident, title)
        self.ours = ours

    def needs(self):
        program("fio")
        if b"rbd" not in lab.run("fio", "--enghelp").stdout.split():
            raise Missing("fio has no rbd engine")
        if self.ours:
            tcmalloc()

    def client_env(self):
        # Each run connects anew and would never flush.
        settings = {"rbd_cache_writethrough_until_flush": "false"}
        env = dict(self.bench.env)
        if self.ours:
            settings.update(self.bench.settings())
            env["LD_PRELOAD"] = tcmalloc()
        env["CEPH_ARGS"] = " ".join(
            "--%s=%s" % item for item in sorted(settings.items()))
        return env

    def start(self):
        pass

    def flush(self):
        pass

    def filler(self):
        peer = Rbdcrypt(self.ident, self.title, "plain")
        peer.bench, peer.image = self.bench, self.image
        return peer

    def engine(self):
        pool, image = self.image.split("/")
        return ["--ioengine=rbd", "--pool=" + pool, "--rbdname=" + image,
                "--clientname=admin"]


def settings_of(peer):
    """The settings of Ceph that a running server has made itself, by its
    admin socket."""
    path = os.path.join(peer.bench.directory, "settings.asok")
    peer.parameters = peer.parameters + ["ceph.admin_socket=" + path]
    peer.begin()
    try:
        diff = json.loads(lab.run(
            "ceph", "--admin-daemon", path, "config", "diff",
            env=peer.bench.env).stdout)["diff"]
    finally:
        peer.stop()
    return {name: str(entry["override"]) for name, entry in diff.items()
            if "override" in entry and re.match(SETTINGS, name)}


PLUGIN = "rbdcrypt-luks2"
OPENSSL = "rbdcrypt-openssl"
THROUGH = "cache-none"
LIMITS = ("fio-default", "fio-ours")
HOP = "null"
# Every row for every column would take two hours.  These get the rows of
# workloads.BRIEF, which hold all that has a limit among the targets; the rows
# with several connections are for the others.
BRIEFLY = (THROUGH, "rbdcrypt-none", "rbdcrypt-tcmalloc",
           "fio-ours")
# And these those of workloads.FEW.
BARELY = ("qemu-luks2-slim", "luks-filter", "rbdcrypt-cinder",
          "rbdcrypt-luks1")
QUICKLY = ("qemu-plain", "qemu-luks2", "qemu-luks1", PLUGIN, OPENSSL, THROUGH,
           "rbdcrypt-tcmalloc", *LIMITS, HOP)
CONNECTED = ("qemu-plain", "qemu-luks2", PLUGIN, OPENSSL, HOP)


def standard():
    return [
        QemuNbd("qemu-plain", "qemu-nbd plain"),
        QemuNbdLuks2("qemu-luks2", "qemu-nbd librbd LUKS2"),
        QemuNbdLuks2("qemu-luks2-slim", "qemu-nbd librbd LUKS2, image "
                     "without fast-diff", "fast-diff"),
        QemuNbdLuks1("qemu-luks1", "qemu-nbd QEMU LUKS1"),
        LuksFilter("luks-filter", "nbdkit luks filter"),
        Rbdcrypt(PLUGIN, "rbdcrypt LUKS2", "luks2"),
        Rbdcrypt(OPENSSL, "rbdcrypt LUKS2, openssl", "luks2",
                 parameters=["engine=openssl"]),
        Rbdcrypt(THROUGH, "rbdcrypt LUKS2, cache=none", "luks2",
                 parameters=["cache=none"], writes_only=True),
        Rbdcrypt("rbdcrypt-cinder", "rbdcrypt on QEMU LUKS1, openssl",
                 "qemu-luks1", parameters=["engine=openssl"]),
        Rbdcrypt("rbdcrypt-luks1", "rbdcrypt LUKS1", "luks1"),
        Rbdcrypt("rbdcrypt-none", "rbdcrypt key=none", "plain"),
        Rbdcrypt("rbdcrypt-tcmalloc", "rbdcrypt LUKS2, tcmalloc", "luks2",
                 preload="tcmalloc"),
        FioRbd("fio-default", "fio rbd plain"),
        FioRbd("fio-ours", "fio rbd plain, our settings", ours=True),
        Null(HOP, "nbdkit null"),
    ]


def extra():
    """By name only."""
    found = [Memory("memory", "nbdkit memory"),
             QemuNbd("qemu-plain-slim", "qemu-nbd plain, image without "
                     "fast-diff", "fast-diff")]
    for threads in "2", "4", "8", "32":
        found.append(Rbdcrypt(
            "threads-" + threads, "rbdcrypt LUKS2, nbdkit -t " + threads,
            "luks2", threads=threads))
    # What stock Debian allows, which it is without, too; and what a sysctl
    # could allow.
    for size in "212992", "4194304":
        found.append(Rbdcrypt(
            "sndbuf-" + size, "rbdcrypt LUKS2, send buffer of %s bytes"
            % size, "luks2", variables={"BENCH_SNDBUF": size}))
    return found


def variant(text, plugins):
    """A peer from "NAME:WORD=VALUE,...": base=luks2|luks1|none,
    preload=tcmalloc, threads=N, plugin=NAME of PLUGINS, env.NAME=VALUE;
    every other word is a parameter of the plugin."""
    name, _, rest = text.partition(":")
    if not name or "/" in name:
        raise ValueError("--variant %s: wants NAME:WORD=VALUE,..." % text)
    words = {}
    for part in filter(None, rest.split(",")):
        word, equals, value = part.partition("=")
        if not equals:
            raise ValueError("--variant %s: %r is not WORD=VALUE" % (
                text, part))
        words[word] = value
    kind = words.pop("base", "luks2")
    if kind not in ("luks2", "luks1", "none"):
        raise ValueError("--variant %s: base=luks2, luks1 or none" % text)
    plugin = words.pop("plugin", None)
    if plugin is not None and plugin not in plugins:
        raise ValueError("--variant %s: no --plugin %s=PATH" % (text, plugin))
    variables = {w[len("env."):]: words.pop(w)
                 for w in list(words) if w.startswith("env.")}
    peer = Rbdcrypt(name, name, "plain" if kind == "none" else kind,
                    plugin=plugins.get(plugin),
                    preload=words.pop("preload", None),
                    threads=words.pop("threads", None), variables=variables,
                    parameters=["%s=%s" % w for w in words.items()])
    return peer


def select(idents, among):
    known = {p.ident: p for p in among}
    for ident in idents:
        if ident not in known:
            raise ValueError("no peer is called %r; there are: %s" % (
                ident, ", ".join(known)))
    return [p for p in among if p.ident in idents]
