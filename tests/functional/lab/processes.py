# SPDX-License-Identifier: BSD-3-Clause
"""What /proc tells of a process."""

import errno
import glob
import os
import re

from lab.settings import KIB


def resident(pid):
    """Bytes of memory that it has."""
    with open("/proc/%d/statm" % pid, encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def peak(pid):
    """The most bytes of memory that it has had."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        return int(re.search(r"^VmHWM:\s+(\d+)", f.read(), re.M)[1]) * KIB


def all_stopped(pid):
    """Each thread: on a busy machine they go on for a while."""
    for stat in glob.glob("/proc/%d/task/*/stat" % pid):
        try:
            with open(stat) as f:
                if f.read().rsplit(")", 1)[1].split()[0] != "T":
                    return False
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    return True


def ignores(pid, number):
    """Does the process ignore this signal?"""
    with open("/proc/%d/status" % pid) as f:
        mask = re.search(r"^SigIgn:\s*(\w+)", f.read(), re.M).group(1)
    return bool(int(mask, 16) >> (number - 1) & 1)


def processes_with(text):
    """Pids of living processes whose command line or environment holds
    TEXT, but for this one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        what = b""
        for part in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (entry, part), "rb") as f:
                    what += f.read()
            except OSError as e:
                # Gone, or not for us to read (not dumpable, another
                # container's): its command line still tells.
                if e.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
                    raise
        if text.encode() in what:
            found.append(int(entry))
    return found
