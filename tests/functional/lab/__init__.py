# SPDX-License-Identifier: BSD-3-Clause
"""What the functional tests work with: a real Ceph cluster, real key
servers, encrypted images, and nbdkit serving them.

Each file is one of these things:

    settings command programs processes memory   this machine
    cluster connection images qemu xts matrix    Ceph, and what is in it
    server servers client trail journal          nbdkit, and what it says
    crashes reconnecting machines qmp            it and QEMU
    openbao barbican_server kmip_server          key servers that are real
    fake_kms fake_kubernetes certificates        and servers that are not
    classes questions hostile                    what they answer, and when
    logins castellan ceph_csi records bound      how a key is found
    volume load fio                              a key that is taken away
    metrics prometheus                           those who watch a server
    documents stage                              examples, and where they run

What nearly every test needs is here under a short name; the rest is imported
from where it is.  Every wait has a limit, and everything that is started is
ended.
"""

from lab.client import Client, Refused
from lab.cluster import Cluster
from lab.command import await_, bookworm_python, free_port, run
from lab.images import Image, Images
from lab.openbao import Bao
from lab.processes import all_stopped, ignores, processes_with
from lab.qemu import qemu_luks
from lab.server import Daemon, Server
from lab.servers import Refusal, Servers
from lab.settings import (AT_ONCE, ENV, HERE, KIB, MARK, MIB, PASSPHRASE, SEED,
                          START_LIMIT, STOP_LIMIT, TOP, UNLOCK_LIMIT, pattern)

__all__ = [
    "AT_ONCE", "Bao", "Client", "Cluster", "Daemon", "ENV", "HERE", "Image",
    "Images", "KIB", "MARK", "MIB", "PASSPHRASE", "Refusal", "Refused",
    "SEED", "START_LIMIT", "STOP_LIMIT", "Server", "Servers", "TOP",
    "UNLOCK_LIMIT", "all_stopped", "await_", "bookworm_python", "free_port",
    "ignores", "pattern", "processes_with", "qemu_luks", "run"]
