# SPDX-License-Identifier: BSD-3-Clause
"""Builds of the plugin, each of a copy of its tree."""

import os
import subprocess

from pool import Refused

SO = os.path.join(".libs", "nbdkit-rbdcrypt-plugin.so")
SCRIPT = r"""
set -eu
mkdir -p "$2/src" "$2/build"
tar -C "$1" --exclude=./.git --exclude='./build*' --exclude=__pycache__ \
  --exclude='*.o' --exclude='*.lo' --exclude=.libs --exclude=./configure \
  --exclude=./Makefile.in --exclude=./aclocal.m4 --exclude=./autom4te.cache \
  --exclude=./m4 -cf - . \
  | tar -C "$2/src" -xf -
cd "$2/src"
[ -e configure ] && [ configure -nt configure.ac ] || autoreconf -fi
cd "$2/build"
[ -e Makefile ] || "$2/src/configure" -q
make -s -j"$(nproc)" nbdkit-rbdcrypt-plugin.la
"""


def build(tree, directory):
    """TREE's plugin, in DIRECTORY; quick when nothing changed there."""
    os.makedirs(directory, exist_ok=True)
    log = os.path.join(directory, "log")
    with open(log, "wb") as f:
        r = subprocess.run(["bash", "-c", SCRIPT, "build", tree, directory],
                           stdin=subprocess.DEVNULL, stdout=f, stderr=f)
    if r.returncode:
        with open(log, errors="replace") as f:
            tail = f.read()[-3000:]
        raise Refused("building %s failed; the end of %s:\n%s" % (
            tree, log, tail))
    return os.path.join(directory, "build", SO)


def compiled(source, target, *options):
    """TARGET from SOURCE, a program in one file; anew each time, for the
    release that runs now."""
    r = subprocess.run(["cc", "-O2", "-Wall", "-o", target + ".new", source,
                        *options], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True)
    if r.returncode:
        raise Refused("building %s failed:\n%s" % (target, r.stderr))
    os.rename(target + ".new", target)
    return target


def plugin(path, directory):
    """A plugin from PATH: the file itself, or a tree to build."""
    if os.path.isdir(path):
        return build(path, directory)
    if not os.path.isfile(path):
        raise Refused("there is no %s" % path)
    return path
