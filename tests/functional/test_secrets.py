# SPDX-License-Identifier: BSD-3-Clause
"""Key bytes are where they must be and nowhere else."""

import os
import re
import subprocess

import nbd
import pytest

import lab
from lab.memory import leaves_memory, places
from lab.processes import resident
from lab.servers import names

SECRET = b"an-unmistakable-passphrase-0123456789-abcdef"


def is_locked(pid, line):
    """Is the mapping that LINE describes locked and left out of dumps?"""
    with open("/proc/%d/smaps" % pid) as f:
        text = f.read()
    _, _, rest = text.partition(line.split()[0])
    locked = re.search(r"^Locked:\s+(\d+) kB", rest, re.M)
    flags = re.search(r"^VmFlags: (.*)$", rest, re.M)
    return int(locked.group(1)) > 0 and "dd" in flags.group(1).split()


def test_no_passphrase_in_memory_after_the_unlock(servers, images, files):
    image = images.luks(passphrase=SECRET)
    server = servers.start(
        image, "key=file:" + files("k", SECRET),
        env={"RBDCRYPT_ALLOW_CORE": "1"})
    with server.connect() as c:
        c.write(lab.pattern(65536), 0)
        c.flush()
        assert c.read(65536, 0) == lab.pattern(65536)
        assert places(server.pid, SECRET) == []
        assert places(server.pid, SECRET.hex().encode()) == []


def test_no_passphrase_in_memory_after_a_costly_unlock(servers, images,
                                                       files):
    image = images.costly(passphrase=SECRET)
    server = servers.start(
        image, "key=file:" + files("k", SECRET),
        env={"RBDCRYPT_ALLOW_CORE": "1"})
    with server.connect(timeout=lab.UNLOCK_LIMIT) as c:
        c.read(4096, 0)
        assert places(server.pid, SECRET) == []


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_volume_key_is_where_it_must_be_only(servers, images, files, engine):
    """In librbd's heap, or in locked pages of ours."""
    image = images.luks(passphrase=SECRET)
    key = images.volume_key(SECRET)
    assert len(key) == 64
    server = servers.start(
        image, "key=file:" + files("k", SECRET), "engine=" + engine,
        env={"RBDCRYPT_ALLOW_CORE": "1"})
    with server.connect() as c:
        c.write(lab.pattern(65536), 0)
        c.flush()
        # A key that the search would miss proves nothing by its absence.
        where = places(server.pid, key)
        assert where, "the volume key is not found at all"
        for line in where:
            assert "stack" not in line, line
        if engine == "openssl":
            # And either half: OpenSSL's key schedules begin with one.
            for part in key, key[:32], key[32:]:
                where = places(server.pid, part)
                assert where
                for line in where:
                    assert is_locked(server.pid, line), line


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_no_key_at_all_in_memory_after_the_volume_was_closed(
        servers, images, files, cluster, engine):
    """The session ends (here by an unsafe setting), the process stays."""
    image = images.luks(passphrase=SECRET)
    key = images.volume_key(SECRET)
    server = servers.start(
        image, "key=file:" + files("k", SECRET), "engine=" + engine,
        env={"RBDCRYPT_ALLOW_CORE": "1"})
    server.expected_status = None
    with server.connect() as c:
        c.write(lab.pattern(65536), 0)
        c.flush()
        assert places(server.pid, key)
        cluster.rbd("config", "image", "set", image,
                    "rbd_sparse_read_threshold_bytes", "65536")

        def closed():
            try:
                c.read(4096, 0)
                return False
            except nbd.Error:
                return cluster.watchers(image) == []
        lab.await_(closed, 30, "the image is closed")
        leaves_memory(server.pid, key, key[:32], SECRET)


def test_process_cannot_be_dumped(servers, images, key):
    server = servers.start(images.luks(), key)
    with server.connect() as c:
        c.read(4096, 0)
        with open("/proc/%d/limits" % server.pid) as f:
            limit = re.search(r"Max core file size\s+(\S+)\s+(\S+)", f.read())
        assert limit.groups() == ("0", "0")
        # Not dumpable: its files in /proc belong to root, group root, and
        # the kernel refuses ptrace by the same user.
        r = subprocess.run(
            ["setpriv", "--reuid", "12345", "--regid", "12345",
             "--clear-groups", "cat", "/proc/%d/environ" % server.pid],
            capture_output=True, timeout=20)
        assert r.returncode != 0


def test_process_of_an_ordinary_user_cannot_be_read_by_that_user(
        as_nobody, images, key):
    server = as_nobody(images.luks(), key)
    with server.connect() as c:
        c.read(4096, 0)
        r = subprocess.run(
            ["setpriv", "--reuid", "nobody", "--regid", "nogroup",
             "--clear-groups", "cat", "/proc/%d/environ" % server.pid],
            capture_output=True, timeout=20)
        assert r.returncode != 0, "environ can be read"


def test_no_secret_in_verbose_logs(servers, images, files, bao):
    bao.put("loud/vol", {"key": SECRET.decode()})
    image = images.luks(passphrase=SECRET)
    token = bao.limited_token("secret/data/loud/vol",
                              "sys/internal/ui/mounts/*")
    server = servers.start(
        image, "key=bao:secret/loud/vol#key",
        options=["-v", "-D", "rbdcrypt.session=1"],
        env={"BAO_ADDR": bao.address, "BAO_TOKEN": token,
             "BAO_CACERT": bao.ca})
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
    server.stop()
    log = server.stderr()
    assert "debug" in log
    assert SECRET.decode() not in log
    assert token not in log
    assert SECRET.hex() not in log


def test_no_secret_in_the_command_line_or_log_of_a_refusal(
        servers, images, files, bao):
    """The wrong key is a secret too."""
    bao.put("loud/wrong", {"key": SECRET.decode()})
    refusal = servers.refused(
        images.luks(), "key=bao:secret/loud/wrong#key",
        options=["-v"],
        env={"BAO_ADDR": bao.address, "BAO_TOKEN": bao.token,
             "BAO_CACERT": bao.ca})
    text = "\n".join(refusal.lines)
    assert SECRET.decode() not in text
    assert bao.token not in text


@pytest.mark.parametrize("parameter", [
    "passphrase=hunter2", "password=hunter2", "token=hunter2",
    "secret=hunter2", "key-secret=hunter2", "key=hunter2", "ceph.key=hunter2"])
def test_literal_secrets_are_refused_and_not_repeated(servers, parameter):
    refusal = servers.refused("rbd/x", parameter)
    assert "hunter2" not in refusal.sentence


@pytest.mark.parametrize("option,word", [
    ("ceph.key=AQBhbGxvYWxsb2FsbG9hbGxvYWxsb2E=", "ceph.key"),
    ("ceph.debug_rbd=30", "debug_rbd"),
    ("ceph.debug_rbd=5/30", "debug_rbd"),
    ("ceph.rbd_persistent_cache_mode=rwl", "rbd_persistent_cache_mode"),
    ("ceph.rbd_plugins=pwl_cache", "rbd_plugins"),
    ("ceph.rbd_plugins=parent_cache,pwl_cache", "rbd_plugins"),
    ("ceph.rbd_sparse_read_threshold_bytes=65536",
     "rbd_sparse_read_threshold_bytes"),
    ("ceph.rbd_cache=true", "rbd_cache"),
    ("ceph.rbd_cache=2", "rbd_cache"),
    ("ceph.rbd_disable_zero_copy_writes=false",
     "rbd_disable_zero_copy_writes"),
])
def test_options_that_leak_are_refused(servers, key, option, word):
    names(servers.refused("rbd/x", key, option), word)


@pytest.mark.parametrize("option,value", [
    ("rbd_persistent_cache_mode", "rwl"), ("rbd_plugins", "pwl_cache"),
    ("debug_rbd", "30/30")])
def test_configuration_that_leaks_is_refused(servers, images, key, files,
                                             cluster, option, value):
    with open(cluster.conf) as f:
        text = f.read().replace("[global]\n", "[global]\n%s = %s\n"
                                % (option, value))
    conf = files("leaky.conf", text)
    names(servers.refused(images.luks(), key, "conf=" + conf, conf=False),
          option)


@pytest.mark.parametrize("option,value", [
    ("rbd_persistent_cache_mode", "rwl"), ("debug_rbd", "30/30")])
def test_configuration_in_the_monitors_that_leaks_is_refused(
        servers, images, key, cluster, option, value):
    """ceph config set: clients get it when they connect."""
    image = images.luks()
    cluster.ceph("config", "set", "client", option, value)
    try:
        names(servers.refused(image, key), option)
    finally:
        cluster.ceph("config", "rm", "client", option)


def test_user_option_works_with_files_that_only_root_can_read(
        as_nobody, images, key):
    """Keyring and key file are read before nbdkit becomes that user."""
    image = images.luks()
    server = as_nobody(image, key)
    with server.connect() as c:
        assert c.size == image.size
        c.write(lab.pattern(4096), 0)
        c.flush()
    with open("/proc/%d/status" % server.pid) as f:
        assert re.search(r"^Uid:\s+(?!0\b)", f.read(), re.M)


def test_nothing_of_the_key_is_written_to_files(servers, images, files):
    image = images.luks(passphrase=SECRET)
    server = servers.start(image, "key=file:" + files("k", SECRET))
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
    server.stop()
    for directory, _, names_ in os.walk(server.dir):
        for name in names_:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    assert SECRET not in f.read(), path


@pytest.mark.parametrize("allocator", ["glibc", "tcmalloc"])
def test_memory_of_an_argon2_unlock_is_given_back(servers, images, key,
                                                  allocator):
    env = {}
    if allocator == "tcmalloc":
        library = lab.run("sh", "-c", "ls /usr/lib/*/libtcmalloc.so.4"
                          ).stdout.decode().strip()
        env["LD_PRELOAD"] = library
    image = images.costly()
    server = servers.start(image, key, env=env)
    with server.connect(timeout=lab.UNLOCK_LIMIT) as c:
        c.read(lab.MIB, 0)
        lab.await_(lambda: resident(server.pid) < 150 * lab.MIB, 10,
                   "resident memory below 150 MiB")
