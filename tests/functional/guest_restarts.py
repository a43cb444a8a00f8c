# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine that writes and verifies while its disk's server is
restarted.  tests/long/restarts runs it: it needs QEMU and a kernel."""

import os
import threading

import pytest

import lab
from lab import machines
from lab.reconnecting import RESTARTS, quiet, serve

# Without a cache in the guest or in QEMU; each run verifies what it wrote.
FIO = ["fio", "--name=job", "--filename=/dev/vda", "--direct=1",
       "--ioengine=libaio", "--iodepth=16", "--bs=64k", "--rw=randwrite",
       "--size=8m", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
       "--end_fsync=1", "--output-format=terse"]


class Work:
    """fio in the guest, again and again."""

    def __init__(self, machine):
        self.machine = machine
        self.rounds = 0
        self.failure = None
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stopping:
                self.machine.call(FIO + ["--randseed=%d" % self.rounds], 180)
                self.rounds += 1
        except machines.GuestError as e:
            self.failure = e

    def goes_on(self):
        before = self.rounds
        lab.await_(lambda: self.failure or self.rounds > before + 1, 240,
                   "the guest goes on")
        assert self.failure is None, str(self.failure)

    def end(self):
        self.stopping = True
        self.thread.join(240)
        assert self.failure is None, str(self.failure)


@pytest.mark.timeout(180 * RESTARTS + 300)
def test_guest_does_not_notice_restarts(servers, images, key, guest_image,
                                        tmp_path):
    image = images.luks()
    path = os.path.join(servers.dir, "guest")
    server = serve(servers, image, key, path)
    machine = machines.Machine(
        str(tmp_path / "guest"), guest_image,
        [machines.Disk(path, "reconnect-delay=60")])
    try:
        work = Work(machine.connect())
        for _ in range(RESTARTS):
            work.goes_on()
            assert server.stop() == 0, server.stderr()
            quiet(server)
            server = serve(servers, image, key, path)
        work.goes_on()
        work.end()
        # The kernel's word for it, whichever process asked.
        log = machine.call(["dmesg"], 60)
        assert "error" not in log, log
    finally:
        machine.stop()
    os.unlink(path)
