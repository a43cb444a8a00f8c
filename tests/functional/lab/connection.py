# SPDX-License-Identifier: BSD-3-Clause
"""A connection of this process to the cluster.  Each "ceph" would take half
a second of a processor from what is tested, each "rbd" a tenth."""

import contextlib
import functools
import json
import os
import socket

import rados
import rbd
from ceph_argparse import parse_json_funcsigs, validate_command

LIMIT = "60"  # seconds
BLOCK = 4096


def written(path):
    """[(offset, bytes)] of the file's blocks that hold more than zeros."""
    with open(path, "rb") as f:
        size, at, begin, data = os.path.getsize(path), 0, 0, bytearray()
        while at < size:
            try:
                found = f.seek(at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                found = size  # holes only
            f.seek(found)
            block = f.read(BLOCK)
            if data and (found > at or not block.strip(b"\0")):
                yield begin, bytes(data)
                data = bytearray()
            if block.strip(b"\0"):
                begin = begin if data else found
                data += block
            at = found + BLOCK
        if data:
            yield begin, bytes(data)


def admin(path, prefix, **members):
    """What a process says at its admin socket PATH."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        s.sendall(json.dumps({"prefix": prefix, "format": "json", **members}
                             ).encode() + b"\0")
        with s.makefile("rb") as f:
            return json.loads(f.read(int.from_bytes(f.read(4), "big")))


class Connection:
    def __init__(self, conf):
        self.rados = rados.Rados(conffile=conf, conf={
            "client_mount_timeout": LIMIT, "rados_mon_op_timeout": LIMIT,
            "rados_osd_op_timeout": LIMIT})
        self.rados.connect()
        self.commands = parse_json_funcsigs(self._monitor(
            {"prefix": "get_command_descriptions"}).decode(), "cli")

    def close(self):
        self.rados.shutdown()

    # --- daemons ---

    def ceph(self, *words, **members):
        """What "ceph WORDS" would print; MEMBERS: of the command."""
        return self._monitor({**self._command(*map(str, words)), **members})

    @functools.lru_cache
    def _command(self, *words):
        # There are hundreds: it takes a tenth of a second to find one.
        command = validate_command(self.commands, list(words))
        assert command, "no command of a monitor: " + " ".join(words)
        return command

    def _monitor(self, command):
        return self._worked(command, *self.rados.mon_command(
            json.dumps(command), b""))

    def osd(self, number, prefix):
        """What an OSD itself answers."""
        command = {"prefix": prefix, "format": "json"}
        return json.loads(self._worked(command, *self.rados.osd_command(
            number, json.dumps(command), b"")))

    @staticmethod
    def _worked(command, status, out, said):
        assert status == 0, "%s: %d %s" % (command["prefix"], status, said)
        return out

    # --- images ---

    @contextlib.contextmanager
    def _place(self, spec):
        *where, name = str(spec).split("/")
        with self.rados.open_ioctx(where[0]) as ioctx:
            ioctx.set_namespace("/".join(where[1:]))
            yield ioctx, name

    @contextlib.contextmanager
    def _image(self, spec):
        """Opened for reading: that leaves no watch and no lock."""
        with self._place(spec) as (ioctx, name), \
                rbd.Image(ioctx, name, read_only=True) as image:
            yield image

    def watchers(self, spec):
        """As "rbd status" tells of them."""
        with self._image(spec) as image:
            return [{"address": w["addr"], "client": w["id"],
                     "cookie": w["cookie"]} for w in image.watchers_list()]

    def lockers(self, spec):
        """As "rbd lock ls" tells of them."""
        with self._image(spec) as image:
            found = image.list_lockers()
            return [{"locker": client, "id": cookie, "address": address}
                    for client, cookie, address in
                    (found["lockers"] if found else [])]

    def read(self, spec, count=None):
        """What RADOS holds: COUNT bytes, or all of it."""
        with self._image(spec) as image:
            return image.read(0, count or image.size())

    def ident(self, spec):
        with self._image(spec) as image:
            return image.id()

    def create(self, spec, size):
        with self._place(spec) as (ioctx, name):
            rbd.RBD().create(ioctx, name, size, old_format=False)

    def imported(self, spec, path):
        """As "rbd import" makes it of the file."""
        self.create(spec, os.path.getsize(path))
        with self._place(spec) as (ioctx, name), \
                rbd.Image(ioctx, name) as image:
            for at, data in written(path):
                image.write(data, at)

    def snapshot(self, spec, snapshot):
        """Make it, unless it is there."""
        with self._place(spec) as (ioctx, name), \
                rbd.Image(ioctx, name) as image:
            if snapshot not in [s["name"] for s in image.list_snaps()]:
                image.create_snap(snapshot)
