# SPDX-License-Identifier: BSD-3-Clause
"""A real systemd-journald of one test's own: it has /run/systemd to itself,
in a mount namespace that ends with it."""

import json
import os
import signal
import subprocess

import lab

SOCKET = "run/systemd/journal/socket"

# In a chroot "/" is no mount whose propagation could be changed; the one of
# tests/env/chroot has a private namespace already.
UNSHARE = ("unshare", "-m", "--propagation", "unchanged", "sh", "-euc")
PRIVATE = "mount --make-rprivate / 2>/dev/null || :\n"

# It takes no messages of the kernel or its audit; every line counts.
START = PRIVATE + """
mkdir -p /run/systemd /run/log
for d in /run/systemd /run/log; do
  mount -t tmpfs -o mode=0755 none $d
done
# journald 257 does not start without one.
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
cat > /run/systemd/journald.conf.d/test.conf <<'END'
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
ForwardToWall=no
ForwardToSyslog=no
RateLimitIntervalSec=0
RuntimeMaxUse=64M
END
exec /lib/systemd/systemd-journald
"""

# There is a /run/systemd, and no journal in it.
NONE = (*UNSHARE, PRIVATE + """
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
exec "$@"
""", "sh")


class Journal:
    def __init__(self, directory):
        self.log = os.path.join(directory, "journald.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*UNSHARE, START],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                     lab.MARK: directory})

    def __enter__(self):
        try:
            lab.await_(self._listens, 20, "systemd-journald listens")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.go_on()
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait(20)

    def _listens(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                raise AssertionError("systemd-journald: " + f.read())
        # Not this namespace's: the script's own mount comes first.  The
        # journal itself is made after the socket.
        return subprocess.run(
            [*self.prefix, "test", "-S", "/" + SOCKET, "-a", "-e",
             "/run/systemd/journald.conf.d/test.conf", "-a", "-d",
             "/run/log/journal"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20,
            check=False).returncode == 0

    @property
    def prefix(self):
        """The beginning of a command that finds this journal."""
        return ("nsenter", "-t", str(self.process.pid), "-m", "-r",
                "-w", "--")

    def pause(self):
        """It takes nothing from its socket any more."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)

    def read(self, *matches):
        """Our entries, the oldest first."""
        out = lab.run(*self.prefix, "journalctl", "-q", "-D",
                      "/run/log/journal", "-t", "rbdcrypt-audit", "-o",
                      "json", *matches).stdout
        return [json.loads(line) for line in out.splitlines()]
