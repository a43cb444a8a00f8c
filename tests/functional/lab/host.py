# SPDX-License-Identifier: BSD-3-Clause
"""A host to set up: a mount namespace that stays, with a copy of /etc, a /run
of its own and the plugin among nbdkit's.  Its users are in that copy."""

import os
import shutil
import subprocess

from lab import stage
from lab.command import run
from lab.settings import MARK


class Host:
    """Made by start(); what runs there are processes of this machine."""

    def __init__(self, directory, plugin):
        self.dir = str(directory)  # short, and anybody may enter it
        self.plugin = plugin

    def __enter__(self):
        os.makedirs(self.dir)
        os.chmod(self.dir, 0o755)
        self.stage = stage.made(os.path.join(self.dir, "stage"), self.plugin)
        script = os.path.join(self.dir, "stays")
        with open(script, "w", encoding="utf-8") as f:
            f.write("echo ready\nexec cat\n")
        self.process = subprocess.Popen(
            [*self.stage.__enter__(), script], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=self.environment())
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
        self.stage.__exit__(*exc)
        shutil.rmtree(self.dir)

    def environment(self, **more):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C",
                "HOME": "/nonexistent", MARK: self.dir, **more}

    @property
    def inside(self):
        """A command prefix that runs a command there; in a chroot, below its
        root, too."""
        return ["nsenter", "-t", str(self.process.pid), "-m", "-r", "-w"]

    def path(self, path):
        """Where a process outside finds the host's PATH."""
        return "/proc/%d/root%s" % (self.process.pid, path)

    def read(self, path):
        with open(self.path(path), encoding="utf-8") as f:
            return f.read()

    def write(self, path, text):
        """Replace the text of a file; its owner and mode stay."""
        path = self.path(path)
        before = os.stat(path)
        with open(path + ".new", "w", encoding="utf-8") as f:
            os.fchown(f.fileno(), before.st_uid, before.st_gid)
            os.fchmod(f.fileno(), before.st_mode & 0o7777)
            f.write(text)
        os.rename(path + ".new", path)

    def ids(self, user):
        """(uid, gid) of one of the host's users."""
        for line in self.read("/etc/passwd").splitlines():
            fields = line.split(":")
            if fields[0] == user:
                return int(fields[2]), int(fields[3])
        raise AssertionError("no user %s" % user)

    def as_user(self, user, groups=()):
        """A command prefix that runs a command there as this user, in these
        groups only."""
        uid, gid = self.ids(user)
        more = ["--groups", ",".join(str(self.ids(g)[1]) for g in groups)] \
            if groups else ["--clear-groups"]
        return [*self.inside, "setpriv", "--reuid", str(uid), "--regid",
                str(gid), *more, "--no-new-privs", "--inh-caps=-all",
                "--bounding-set=-all"]

    def run(self, *argv, user=None, groups=(), env=None, **kwargs):
        enter = self.as_user(user, groups) if user else self.inside
        return run(*enter, *argv, env=self.environment(**(env or {})),
                   **kwargs)
