# SPDX-License-Identifier: BSD-3-Clause
"""A real systemd as PID 1 of namespaces of its own.

A booting system manager cleans /tmp, makes devices and mounts what it
likes.  So it gets its own root: a tmpfs, an overlay over /usr whose changes
go there, and, read-only, what a test lends it.  It is not started
if it could write to anything else (SEAL, INSIDE).
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess

from lab.command import await_, run
from lab.settings import MARK

# Outside: a cgroup, which must go again.  Arguments: a directory, a name, and
# the command.
OUTSIDE = r"""
set -eu
dir=$1 name=$2; shift 2
mount --make-rprivate / 2>/dev/null || :
mkdir "$dir/cgroup" "$dir/root"
mount -t cgroup2 cgroup2 "$dir/cgroup"
mkdir "$dir/cgroup/$name"
sh -euc 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$dir/cgroup/$name" \
  unshare --pid --fork --kill-child --mount --propagation unchanged \
          --cgroup --uts --ipc "$@" || :
for i in 1 2 3 4 5 6 7 8 9 10; do
  find "$dir/cgroup/$name" -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.1
done
"""

# Arguments: INSIDE, an empty directory, nbdkit's directory of plugins, the
# plugin, how many directories follow, those, and the command.
SEAL = r"""
set -eu
inside=$1 new=$2 plugindir=$3 plugin=$4 nr=$5; shift 5
mount --make-rprivate / 2>/dev/null || :
mount -t tmpfs -o mode=0755 lab-root "$new"
cd "$new"
mkdir -p usr etc/systemd/system proc sys run tmp var/tmp var/log var/lib \
         root old dev .usr/upper .usr/work
chmod 1777 tmp var/tmp
mount -t overlay -o "lowerdir=/usr,upperdir=$new/.usr/upper,workdir=$new/.usr/work" \
      lab-usr usr
for l in bin sbin lib lib64; do
  [ ! -L "/$l" ] || ln -s "$(readlink "/$l")" "$l"
done
cp "$plugin" ".$plugindir/nbdkit-rbdcrypt-plugin.so"
for i in $(seq "$nr"); do
  mkdir -p ".$1"
  mount --bind "$1" ".$1"
  mount -o remount,bind,ro ".$1"
  shift
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 lab-dev dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for d in 'null 3' 'zero 5' 'full 7' 'random 8' 'urandom 9'; do
  mknod -m 666 "dev/${d% *}" c 1 "${d#* }"
done
mknod -m 666 dev/tty c 5 0
cp -a /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/ssl \
      /etc/nsswitch.conf /etc/hosts etc/
echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
echo 'root:x:0:' > etc/group
echo 5ea1ed5ea1ed5ea1ed5ea1ed5ea1ed00 > etc/machine-id
# Only what a test starts, and the journal.
rm -rf usr/lib/systemd/system/*.wants usr/lib/systemd/system-generators/* \
       usr/lib/systemd/system/systemd-journald-audit.socket
mkdir etc/systemd/journald.conf.d
# The kernel's audit belongs to the host: leave it alone.
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\nRateLimitBurst=0\n' \
  > etc/systemd/journald.conf.d/lab.conf
# In a chroot / is no mount point, and the old root cannot be let go of.
if mountpoint -q /; then
  pivot_root . old
  cd /
  umount -l /old
  rmdir /old
  exec bash -euc "$inside" inside "$@"
else
  mount --move . /
  exec chroot . bash -euc "$inside" inside "$@"
fi
"""

# Nothing that can be written to may be anybody else's.
INSIDE = r"""
cd /
while read -r _ _ _ _ point options rest; do
  type=${rest#*- }
  case ",$options," in *,ro,*) continue ;; esac
  case "${type%% *}" in
  tmpfs | proc | devpts | cgroup2 | overlay) ;;
  *) echo "not sealed: $point can be written to"; exit 99 ;;
  esac
done < /proc/self/mountinfo
# Between this and the namespaces of services only: credentials need it.
mount --make-rshared /
container=lab exec setpriv --bounding-set \
  -sys_module,-sys_boot,-sys_time,-syslog,-sys_rawio,-mac_admin,-mac_override \
  "$@"
"""


class Systemd:
    def __init__(self, directory, plugin, lent):
        self.dir = directory
        os.makedirs(directory)
        dump = run("nbdkit", "--dump-config").stdout.decode()
        plugindir = re.search(r"^plugindir=(.*)$", dump, re.M).group(1)
        self.log = os.path.join(directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "unchanged",
                 "bash", "-c", OUTSIDE, "outside", directory,
                 "rbdcrypt-lab.%d" % os.getpid(),
                 "bash", "-c", SEAL, "seal", INSIDE,
                 os.path.join(directory, "root"),
                 plugindir, plugin, str(len(lent)), *lent,
                 "/lib/systemd/systemd", "--system", "--unit=basic.target",
                 "--log-target=journal-or-kmsg", "--show-status=no"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", MARK: directory})
        self.pid = None

    def __enter__(self):
        try:
            await_(self._runs, 30, "systemd runs")
            self.call("start", "systemd-journald.service")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self._find()
        if self.pid:  # with it everything inside ends
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait(20)
            shutil.rmtree(self.dir)

    def _children(self, pid):
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
                return [int(p) for p in f.read().split()]
        except FileNotFoundError:
            return []

    def _find(self):
        """PID 1 of the inner namespace: bash, unshare, and its child."""
        for unshare in self._children(self.process.pid):
            for pid in self._children(unshare):
                with open("/proc/%d/comm" % pid) as f:
                    if f.read().strip() == "systemd":
                        self.pid = pid

    def _runs(self):
        with open(self.log, errors="replace") as f:
            assert self.process.poll() is None, f.read()
        self._find()
        return self.pid and self.call("is-active", "basic.target",
                                      check=False).returncode == 0

    # --- inside ---

    def run(self, *argv, **kwargs):
        return run("nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i",
                   "-C", "-r", "-w", "--", *argv, **{"env": {
                       "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                       "LC_ALL": "C.UTF-8"}, "timeout": 60, **kwargs})

    def call(self, *argv, **kwargs):
        return self.run("systemctl", *argv, **kwargs)

    def put(self, path, data, mode=0o644, owner="root"):
        """Write a file through this process's view of that root."""
        if isinstance(data, str):
            data = data.encode()
        there = "/proc/%d/root%s" % (self.pid, path)
        os.makedirs(os.path.dirname(there), exist_ok=True)
        with open(there, "wb") as f:
            f.write(data)
        os.chmod(there, mode)
        if owner != "root":
            self.run("chown", owner, path)

    def path(self, path):
        return "/proc/%d/root%s" % (self.pid, path)

    def show(self, unit, *properties):
        """The values of properties, as text."""
        out = self.call("show", unit, *("-p" + p for p in properties)).stdout
        found = dict(line.split("=", 1)
                     for line in out.decode().splitlines())
        return [found[p] for p in properties]

    def state(self, unit):
        return "/".join(self.show(unit, "ActiveState", "SubState", "Result"))

    def await_state(self, unit, pattern, seconds=30):
        """Wait for ActiveState/SubState/Result."""
        try:
            await_(lambda: re.fullmatch(pattern, self.state(unit)), seconds,
                   "%s is %s" % (unit, pattern))
        except AssertionError as e:
            raise AssertionError("%s; it is %s:\n%s" % (
                e, self.state(unit), self.journal(unit))) from None

    def journal(self, unit):
        return self.run("journalctl", "-q", "--no-pager", "-u", unit, "-o",
                        "cat").stdout.decode(errors="replace")
