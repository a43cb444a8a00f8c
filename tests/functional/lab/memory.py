# SPDX-License-Identifier: BSD-3-Clause
"""What lies in the memory of a process."""

import array
import itertools
import os
import re

from lab.command import await_

PAGE = os.sysconf("SC_PAGE_SIZE")
HELD = 1 << 62  # in pagemap: at least in swap


def touched(pagemap, begin, end):
    """The parts of anonymous memory that were ever written to: only a tenth of
    threads' stacks and malloc's arenas."""
    pagemap.seek(begin // PAGE * 8)
    pages = array.array("Q", pagemap.read((end - begin) // PAGE * 8))
    assert len(pages) == (end - begin) // PAGE
    for held, run in itertools.groupby(p >= HELD for p in pages):
        end = begin + PAGE * sum(1 for _ in run)
        if held:
            yield begin, end
        begin = end


def memory(pid):
    """Every readable byte of a process that can be other than zero, (address
    range, bytes)."""
    with open("/proc/%d/maps" % pid) as maps, \
            open("/proc/%d/pagemap" % pid, "rb", 0) as pagemap, \
            open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for line in maps:
            begin, end, mode, inode = re.match(
                r"(\w+)-(\w+) (\S+) \w+ \S+ (\d+)", line).groups()
            if mode[0] != "r" or "[vvar" in line or "[vsyscall" in line:
                continue
            parts = [(int(begin, 16), int(end, 16))]
            if mode[3] == "p" and inode == "0" and "[vdso" not in line:
                parts = touched(pagemap, *parts[0])
            for at, until in parts:
                try:
                    mem.seek(at)
                    yield line.strip(), mem.read(until - at)
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
