# SPDX-License-Identifier: BSD-3-Clause
"""What the plugin sets in Ceph, and what the heap gives back."""

import os

import pytest

import lab
from lab import MIB
from lab.processes import resident

DEPTH = 16


@pytest.fixture
def setting(servers, cluster, encrypted, key, tmp_path):
    """setting(NAME, ARGUMENT..., conf=TEXT) -> its value in a server that
    was started so."""
    def of(name, *arguments, conf=""):
        path = str(tmp_path / "asok")
        own = tmp_path / "ceph.conf"
        with open(cluster.conf, encoding="utf-8") as f:
            own.write_text(f.read() + conf)
        server = servers.start(encrypted, key, "ceph.admin_socket=" + path,
                               "conf=%s" % own, *arguments, conf=False)
        with server.connect():  # it is open
            value = cluster.admin(path, "config get", var=name)[name]
        assert server.stop() == 0
        return value
    return of


def test_no_log_lines_are_gathered_in_memory(setting):
    assert setting("debug_rbd") == "0/0"


def test_threads_are_as_many_as_the_processors_allow(setting):
    half = max(len(os.sched_getaffinity(0)) // 2, 1)
    assert int(setting("librados_thread_count")) == min(half, 2)
    assert int(setting("ms_async_op_threads")) == min(half, 3)


def test_the_command_line_wins(setting):
    assert setting("debug_objecter", "ceph.debug_objecter=0/1") == "0/1"
    assert setting("librados_thread_count",
                   "ceph.librados_thread_count=2") == "2"


def test_the_configuration_file_wins(setting):
    conf = "\n[client]\ndebug_rados = 0/4\nms_async_op_threads = 2\n"
    assert setting("debug_rados", conf=conf) == "0/4"
    assert setting("ms_async_op_threads", conf=conf) == "2"


def test_the_monitors_win(setting, cluster):
    cluster.ceph("config", "set", "client", "debug_throttle", "0/3")
    try:
        assert setting("debug_throttle") == "0/3"
    finally:
        cluster.ceph("config", "rm", "client", "debug_throttle")


def test_what_a_burst_took_is_given_back(servers, encrypted, key):
    """Some seconds after it, to the last large part: glibc would keep
    the end of each of its parts."""
    server = servers.start(encrypted, key,
                           env={"LD_PRELOAD": "libtcmalloc.so.4"})
    with server.connect() as c:
        before = during = resident(server.pid)
        for start in range(0, 48, DEPTH):
            cookies = [c.handle.aio_pwrite(
                os.urandom(MIB),
                (start + i) * MIB) for i in range(DEPTH)]
            for cookie in cookies:
                c.wait(cookie, 60)
            during = max(during, resident(server.pid))
        c.flush()
    assert during > before + 16 * MIB, (before, during)
    lab.await_(lambda: resident(server.pid) < before + 16 * MIB, 30,
               "%d bytes go back to about %d" % (during, before))
