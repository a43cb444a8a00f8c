# SPDX-License-Identifier: BSD-3-Clause
"""The one-node Ceph of tests/env/cluster."""

import glob
import json
import os
import re
import signal

from lab.command import await_, run
from lab.processes import all_stopped
from lab.settings import ENV


class Cluster:
    """The one-node Ceph of tests/env/cluster."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.conf = os.path.join(self.dir, "ceph.conf")
        self.env = dict(os.environ, CEPH_CONF=self.conf)
        self.env.pop("CEPH_ARGS", None)
        self.keys = {}  # of users
        self._connection = None

    def up(self, **settings):
        """SETTINGS: variables of tests/env/cluster."""
        run(os.path.join(ENV, "cluster"), "up", self.dir, timeout=300,
            env=dict(os.environ, **settings))

    def down(self):
        if self._connection:
            self._connection.close()
            self._connection = None
        run(os.path.join(ENV, "cluster"), "down", self.dir, timeout=120)

    def call(self, *argv, **kwargs):
        return run(*argv, env=self.env, **kwargs)

    def rbd(self, *argv, **kwargs):
        return self.call("rbd", *argv, **kwargs).stdout

    @property
    def connection(self):
        if self._connection is None:
            from lab.connection import Connection  # no use to the benchmark
            self._connection = Connection(self.conf)
        return self._connection

    def ceph(self, *words):
        """What "ceph WORDS" would print; not for "tell"."""
        return self.connection.ceph(*words)

    def ask(self, *words):
        return json.loads(self.connection.ceph(*words, format="json"))

    @staticmethod
    def admin(path, prefix, **members):
        """What a process says at its admin socket PATH."""
        from lab.connection import admin
        return admin(path, prefix, **members)

    def json(self, *argv):
        return json.loads(self.call(*argv, "--format", "json").stdout)

    def option(self, name):
        """NAME's value in the [global] section of the configuration."""
        with open(self.conf) as f:
            return re.search(r"^%s = (.*)$" % name, f.read(), re.M).group(1)

    def key(self, user="admin"):
        if user not in self.keys:
            self.keys[user] = self.ceph("auth", "get-key",
                                        "client." + user).decode().strip()
        return self.keys[user]

    def keyring(self, user, osd, mon="profile rbd"):
        """The text of a keyring of USER, created once."""
        if user not in self.keys:
            self.ceph("auth", "get-or-create", "client." + user, "mon", mon,
                      "osd", osd)
        return "[client.%s]\nkey = %s\n" % (user, self.key(user))

    def used(self, image):
        """Bytes of the pool that the image takes."""
        return self.json("rbd", "du", image)["images"][0]["used_size"]

    def ident(self, image):
        return self.connection.ident(image)

    def watchers(self, image):
        """Clients that have the image open for writing."""
        return self.connection.watchers(image)

    def lockers(self, image):
        return self.connection.lockers(image)

    def unset(self, image, setting):
        """Remove a setting of an image without librbd, which cannot
        open an image whose rbd_plugins it lacks."""
        pool, name = str(image).split("/")
        ident = self.call("rados", "-p", pool, "get", "rbd_id." + name,
                          "-").stdout[4:].decode()
        self.call("rados", "-p", pool, "rmomapkey", "rbd_header." + ident,
                  "metadata_conf_" + setting)

    def blocklist(self, address):
        self.ceph("osd", "blocklist", "add", address)
        self.told()

    def told(self):
        """Wait until every OSD knows what the monitors decided."""
        epoch = self.ask("osd", "dump")["epoch"]

        def newest(osd):  # a string since Ceph 20
            return int(self.connection.osd(osd, "status")["newest_map"])
        for osd in self.ask("osd", "ls"):
            await_(lambda o=osd: newest(o) >= epoch,
                   30, "osd.%d has the map %d" % (osd, epoch))

    def osd_pids(self):
        pids = []
        for f in glob.glob(os.path.join(self.dir, "osd.*.pid")):
            with open(f) as g:
                pids.append(int(g.read()))
        return pids

    def freeze(self):
        """The OSDs stop answering; their connections stay."""
        for pid in self.osd_pids():
            os.kill(pid, signal.SIGSTOP)
            # Not in the middle of a write to a slow disk.
            await_(lambda p=pid: all_stopped(p), 60, "an OSD stops")

    def await_asked(self, admin_socket, number=1):
        """Wait until NUMBER requests for data of a server with this
        ceph.admin_socket are under way to OSDs that are frozen: nbdkit logs a
        request before the plugin has it."""
        def asked():
            ops = self.admin(admin_socket, "objecter_requests")["ops"]
            return sum(op["object_id"].startswith("rbd_data.") for op in ops)
        await_(lambda: asked() >= number, 30, "the OSDs are asked")

    def thaw(self):
        for pid in self.osd_pids():
            os.kill(pid, signal.SIGCONT)
        self.healthy()

    def kill_osd(self):
        """The first one, which has all but erasure-coded pools: connections
        to it break, and nothing listens."""
        with open(os.path.join(self.dir, "osd.0.pid")) as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGKILL)
        await_(lambda: not os.path.exists("/proc/%d/exe" % pid), 30,
               "an OSD ends")
        # Else the monitors believe for a while that all is well.
        self.ceph("osd", "down", "0")

    def start_osd(self):
        self.call("ceph-osd", "-c", self.conf, "-i", "0", "--keyring",
                  os.path.join(self.dir, "osd.0", "keyring"), timeout=120)
        self.healthy()

    def restart_monitor(self):
        """Every client logs in anew."""
        with open(os.path.join(self.dir, "mon.a.pid")) as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGTERM)
        await_(lambda: not os.path.exists("/proc/%d/exe" % pid), 30,
               "the monitor ends")
        self.call("ceph-mon", "-c", self.conf, "-i", "a")
        self.healthy()

    def healthy(self):
        """Wait until it is."""
        run(os.path.join(ENV, "cluster"), "wait", self.dir, timeout=200)

    def erasure_pool(self, name="ec"):
        """An erasure-coded data pool, k=2 m=1, on three OSDs of its own."""
        if name in self.ask("osd", "pool", "ls"):
            return name
        run(os.path.join(ENV, "cluster"), "osd", self.dir, name, 3,
            timeout=200)
        self.ceph("osd", "erasure-code-profile", "set", name, "k=2", "m=1",
                  "crush-root=" + name, "crush-failure-domain=osd")
        self.ceph("osd", "pool", "create", name, "8", "8", "erasure", name)
        self.ceph("osd", "pool", "set", name, "allow_ec_overwrites", "true")
        self.ceph("osd", "pool", "application", "enable", name, "rbd")
        self.healthy()
        return name
