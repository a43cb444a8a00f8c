# SPDX-License-Identifier: BSD-3-Clause
"""A mount namespace in which the documents' examples run: with a copy of
/etc, and with the plugin among nbdkit's."""

import contextlib
import os
import re
import shutil

from lab.command import run

# In a chroot / is no mount point, so that its propagation cannot be set;
# tests/env/chroot has made it private before.
PRIVATE = ["unshare", "-m", "--propagation", "private"]
IN_CHROOT = ["unshare", "-m", "--propagation", "unchanged"]

# Arguments: directories that take the place of /etc and of PLUGINDIR.
STAGE = r"""
set -e
mount --bind "$1" /etc
mount -t tmpfs -o mode=755 none /run
mount --bind "$2" "$3"
exec bash -e -o pipefail "$4"
"""


@contextlib.contextmanager
def made(directory, plugin):
    """The beginning of a command that runs a script there."""
    dump = run("nbdkit", "--dump-config").stdout.decode()
    plugindir = re.search(r"^plugindir=(.*)$", dump, re.M).group(1)
    os.makedirs(directory)
    os.chmod(directory, 0o700)
    run("cp", "-a", "/etc", directory)
    run("cp", "-a", plugindir, os.path.join(directory, "plugins"))
    shutil.copy(plugin, os.path.join(directory, "plugins"))
    alone = run(*PRIVATE, "true", check=False).returncode == 0
    yield [*(PRIVATE if alone else IN_CHROOT), "bash", "-c", STAGE, "stage",
           os.path.join(directory, "etc"),
           os.path.join(directory, "plugins"), plugindir]
    shutil.rmtree(directory)
