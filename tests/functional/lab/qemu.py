# SPDX-License-Identifier: BSD-3-Clause
"""Volumes as QEMU makes and reads them, by its own LUKS."""

import re

from lab.command import await_, run


def qemu_luks(secret, path, size, call=run):
    """A LUKS1 image as QEMU makes it; SECRET is the object "s" or "key".

    It times 32,768 iterations by its own CPU time, whose clock may not
    have moved after so few: then it gives up, and is asked again.
    """
    ident = re.search(r"\bid=(\w+)", secret)[1]

    def made():
        r = call("qemu-img", "create", "-q", "-f", "luks", "--object", secret,
                 "-o", "key-secret=%s,cipher-alg=aes-256,cipher-mode=xts,"
                 "ivgen-alg=plain64,iter-time=10" % ident, path, str(size),
                 check=False)
        assert r.returncode == 0 or b"accurate CPU usage" in r.stderr, \
            r.stderr.decode(errors="replace")
        return r.returncode == 0
    await_(made, 60, "qemu-img makes a LUKS image")
