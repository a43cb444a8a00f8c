# SPDX-License-Identifier: BSD-3-Clause
"""What was measured on, and with which versions."""

import os
import platform
import re

import lab


def first_line(*argv):
    try:
        r = lab.run(*argv, check=False)
    except OSError:
        return "not installed"
    return r.stdout.decode(errors="replace").split("\n")[0].strip()


def word_after(path, word):
    with open(path) as f:
        found = re.search(r"^%s\s*:\s*(.*)$" % re.escape(word), f.read(),
                          re.M)
    return found.group(1).strip() if found else "unknown"


def about(plugin):
    dump = lab.run("nbdkit", plugin, "--dump-plugin").stdout.decode()
    dump = dict(x.split("=", 1) for x in dump.splitlines() if "=" in x)
    with open("/etc/os-release") as f:
        release = dict(x.rstrip().split("=", 1) for x in f if "=" in x)
    memory = int(word_after("/proc/meminfo", "MemTotal").split()[0])
    return {
        "system": release["PRETTY_NAME"].strip('"'),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": word_after("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": "%.0f GiB" % (memory / (1 << 20)),
        "ceph": first_line("ceph", "--version"),
        "nbdkit": first_line("nbdkit", "--version"),
        "qemu": first_line("qemu-nbd", "--version"),
        "fio": first_line("fio", "--version"),
        "openssl": first_line("openssl", "version"),
        "plugin": dump["version"],
    }
