# SPDX-License-Identifier: BSD-3-Clause
"""What lies in the memory of a process."""

import re

from lab.command import await_


def memory(pid):
    """Every readable byte of a process, (address range, bytes)."""
    with open("/proc/%d/maps" % pid) as maps, \
            open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for line in maps:
            begin, end, mode = re.match(
                r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            if mode[0] != "r" or "[vvar" in line or "[vsyscall" in line:
                continue
            begin, end = int(begin, 16), int(end, 16)
            try:
                mem.seek(begin)
                yield line.strip(), mem.read(end - begin)
            except OSError:
                continue  # guard pages, device memory


def places(pid, needle):
    found, looked_at = [], 0
    for where, data in memory(pid):
        looked_at += len(data)
        if needle in data:
            found.append(where)
    assert looked_at > 1 << 20, "the memory cannot be read"
    return found


def leaves_memory(pid, *needles):
    """Wait for that: librbd may forget a key a moment after the image is no
    longer watched."""
    for needle in needles:
        await_(lambda n=needle: places(pid, n) == [], 10,
               "it leaves the memory")


def buffered(pid, needle):
    """Where it lies in memory that dumps leave out: in secrets and in buffers
    of writes, not in what nbdkit and librbd allocate."""
    found = places(pid, needle)
    with open("/proc/%d/smaps" % pid) as f:
        flags = dict(re.findall(
            r"^([0-9a-f]+-[0-9a-f]+) [^\0]*?^VmFlags: (.*)$", f.read(), re.M))
    return [line for line in found
            if "dd" in flags.get(line.split()[0], "").split()]
