# SPDX-License-Identifier: BSD-3-Clause
"""The units of contrib/systemd under a real systemd."""

import os
import re
import resource
import socket
import stat
import time

import pytest

import lab
from lab import MIB, exports
from lab.client import Client
from lab.systemd import Systemd
from lab.volume import Volume

SYSTEMD = os.path.join(lab.TOP, "contrib", "systemd")
SERVICE = "rbdcrypt@vol.service"
SOCKET = "rbdcrypt@vol.socket"
NBD = "/run/rbdcrypt/vol/nbd.sock"


@pytest.fixture(scope="module")
def manager(plugin, cluster, bao, lab_dir):
    with Systemd(os.path.join(lab_dir, "systemd"), plugin,
                 [cluster.dir, bao.dir]) as s:
        for name in os.listdir(SYSTEMD):
            if name.startswith("rbdcrypt"):
                with open(os.path.join(SYSTEMD, name)) as f:
                    s.put("/etc/systemd/system/" + name, f.read())
        for d in "sysusers.d", "tmpfiles.d":
            with open(os.path.join(SYSTEMD, d, "rbdcrypt.conf")) as f:
                s.put("/etc/%s/rbdcrypt.conf" % d, f.read())
        s.run("systemd-sysusers", "/etc/sysusers.d/rbdcrypt.conf")
        s.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/rbdcrypt.conf")
        with open(cluster.conf) as f:
            s.put("/etc/rbdcrypt/ceph.conf", f.read())
        s.call("daemon-reload")
        yield s


@pytest.fixture
def unit(manager, servers, images, bao, files, cluster):
    """The unit of a volume whose key can be taken away."""
    v = Volume(servers, images, bao, files)
    with open(v.profiles) as f:
        profiles = f.read()
    with open(files("ca.pem", open(bao.file("ca.pem")).read())) as f:
        manager.put("/etc/rbdcrypt/ca.pem", f.read())
    manager.put("/etc/rbdcrypt/token", v.token, 0o600, "rbdcrypt")
    manager.put("/etc/rbdcrypt/profiles.json", profiles.replace(
        bao.file("ca.pem"), "/etc/rbdcrypt/ca.pem").replace(
        files("token-%s" % v.policy.split("-")[1], v.token),
        "/etc/rbdcrypt/token"))
    manager.put("/etc/rbdcrypt/vol.keyring", "[client.admin]\nkey = %s\n"
                % cluster.key(), 0o600)
    v.manager = manager
    v.environment()
    yield v
    manager.call("stop", SERVICE, SOCKET, check=False)
    manager.call("reset-failed", check=False)
    for name in SERVICE, SOCKET:
        manager.run("rm", "-rf", "/etc/systemd/system/%s.d" % name)
    manager.call("daemon-reload")


def environment(self, *options, listen=None):
    self.manager.put("/etc/rbdcrypt/vol.env", "".join(
        line + "\n" for line in [
            "IMAGE=" + str(self.image), "CEPH_USER=admin",
            "KEY=t:" + self.path,
            "OPTIONS=" + " ".join(["recheck=1", *options])]
        + ([] if listen is None else ["LISTEN=" + listen])))


def drop_in(self, name, text):
    self.manager.put("/etc/systemd/system/%s.d/test.conf" % name, text)
    self.manager.call("daemon-reload")


Volume.environment = environment
Volume.drop_in = drop_in


def start(manager, unit=SERVICE):
    """Start the unit; a failure shows its journal."""
    r = manager.call("start", unit, check=False, timeout=120)
    assert r.returncode == 0, manager.journal(unit)


def connect(manager):
    return Client.connect(manager.path(NBD))


def has_limit(manager, pid, name, which, wanted):
    """The process has this limit, or the most that systemd has here."""
    most = resource.getrlimit(which)[1]
    if most != resource.RLIM_INFINITY:
        wanted = min(most, wanted)
    limits = manager.run("cat", "/proc/%s/limits" % pid).stdout.decode()
    assert re.search(r"^Max %s +%d " % (name, wanted), limits, re.M), limits


def test_a_volume_is_served(manager, unit):
    start(manager)
    assert manager.state(SERVICE) == "active/running/success"
    lab.await_(lambda: manager.show(SERVICE, "StatusText") == ["serving"],
               10, "the status says serving")
    pid, restarts = manager.show(SERVICE, "MainPID", "NRestarts")
    assert restarts == "0"
    s = os.stat(manager.path(NBD))
    assert stat.S_IMODE(s.st_mode) == 0o660 and s.st_uid != 0
    with connect(manager) as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        assert c.read(4096, 0) == lab.pattern(4096)
    has_limit(manager, pid, "open files", resource.RLIMIT_NOFILE, 4096)
    has_limit(manager, pid, "core file size", resource.RLIMIT_CORE, 0)
    has_limit(manager, pid, "locked memory", resource.RLIMIT_MEMLOCK,
              64 * MIB)
    manager.call("stop", SERVICE)
    assert manager.state(SERVICE) == "inactive/dead/success"


def test_a_volume_whose_key_is_refused_is_a_failed_unit(manager, unit):
    start(manager)
    with connect(manager):
        unit.remove_policy()
        manager.await_state(SERVICE, "failed/failed/exit-code")
    status, restarts = manager.show(SERVICE, "ExecMainStatus", "NRestarts")
    assert (status, restarts) == ("77", "0"), manager.journal(SERVICE)
    assert manager.call("is-failed", SERVICE, check=False).returncode == 0
    # The same at a start.
    assert manager.call("start", SERVICE, check=False).returncode != 0
    assert manager.state(SERVICE) == "failed/failed/exit-code"
    assert manager.show(SERVICE, "ExecMainStatus", "NRestarts") == ["77", "0"]
    unit.allow()
    start(manager)
    assert manager.state(SERVICE) == "active/running/success"


def test_an_outage_of_the_kms_is_tried_until_it_is_over(manager, unit, bao):
    unit.drop_in(SERVICE, "[Service]\nRestartSec=1\n")
    bao.seal()
    try:
        assert manager.call("start", SERVICE, check=False).returncode != 0
        manager.await_state(SERVICE, "activating/auto-restart/exit-code")
        lab.await_(lambda: int(manager.show(SERVICE, "NRestarts")[0]) >= 2,
                   60, "it was tried again")
    finally:
        bao.unseal()
    manager.await_state(SERVICE, "active/running/success", 60)


def test_the_status_says_that_grace_has_begun(manager, unit, bao):
    unit.environment("grace=600")
    start(manager)
    bao.seal()
    try:
        lab.await_(lambda: manager.show(SERVICE, "StatusText") == [
            "serving, in grace: the key server does not answer"], 30,
            "the status says so")
        assert manager.state(SERVICE) == "active/running/success"
    finally:
        bao.unseal()


def test_a_server_that_stands_still_is_killed_and_started_again(manager,
                                                                unit):
    unit.drop_in(SERVICE, "[Service]\nWatchdogSec=3\nRestartSec=1\n")
    start(manager)
    pid = manager.show(SERVICE, "MainPID")[0]
    with connect(manager) as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
    manager.run("kill", "-STOP", pid)
    lab.await_(lambda: manager.show(SERVICE, "NRestarts") == ["1"], 30,
               "it is started again")
    manager.await_state(SERVICE, "active/running/success", 60)
    assert "Watchdog timeout" in manager.journal(SERVICE)
    assert manager.show(SERVICE, "MainPID") != [pid]
    with connect(manager) as c:
        assert c.read(4096, 0) == lab.pattern(4096)


def test_a_watchdog_is_answered_while_it_serves(manager, unit):
    unit.drop_in(SERVICE, "[Service]\nWatchdogSec=2\nRestart=no\n")
    start(manager)
    with connect(manager) as c:
        end = time.monotonic() + 8
        while time.monotonic() < end:
            c.write(lab.pattern(4096), 0)
    assert manager.state(SERVICE) == "active/running/success"


def test_a_killed_server_is_followed_by_another(manager, unit):
    """The killed server's socket is in the way, and its count must stay."""
    unit.drop_in(SERVICE, "[Service]\nRestartSec=1\n")
    start(manager)
    pid = manager.show(SERVICE, "MainPID")[0]
    manager.run("kill", "-KILL", pid)
    lab.await_(lambda: manager.show(SERVICE, "MainPID") not in ([pid], ["0"]),
               30, "another has started")
    manager.await_state(SERVICE, "active/running/success", 60)
    assert os.path.exists(manager.path(NBD + ".unflushed"))


# ---------------------------------------------------------------------
# Its socket.

def test_the_first_client_starts_the_server_and_none_is_refused(manager,
                                                                unit):
    unit.environment(listen="")
    start(manager, SOCKET)
    assert manager.state(SERVICE).startswith("inactive/dead/")
    s = os.stat(manager.path(NBD))
    assert stat.S_IMODE(s.st_mode) == 0o660 and s.st_uid != 0
    with connect(manager) as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
    manager.await_state(SERVICE, "active/running/success")
    manager.call("stop", SERVICE, check=False)
    manager.await_state(SERVICE, "inactive/dead/success")
    assert manager.state(SOCKET) == "active/listening/success"
    with connect(manager) as c:  # and again
        assert c.read(4096, 0) == lab.pattern(4096)
    manager.call("restart", SERVICE)
    with connect(manager) as c:
        assert c.read(4096, 0) == lab.pattern(4096)
    manager.call("stop", SOCKET, SERVICE)
    assert not os.path.exists(manager.path(NBD))


def tries(manager):
    return manager.journal(SERVICE).count("Starting ")


def test_a_client_that_waits_does_not_start_it_for_ever(manager, unit):
    unit.environment(listen="")
    unit.drop_in(SOCKET, "[Socket]\nTriggerLimitBurst=4\n")
    unit.remove_policy()
    before = tries(manager)
    start(manager, SOCKET)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(manager.path(NBD))
        manager.await_state(SOCKET, "failed/failed/trigger-limit-hit", 60)
    assert 1 <= tries(manager) - before <= 5, manager.journal(SERVICE)


# ---------------------------------------------------------------------
# A tenant's.

EXPORTS = "rbdcrypt-exports@a.service"
TENANT = "/etc/rbdcrypt/a/"


@pytest.fixture
def tenant(manager, images, cluster):
    """The unit of a tenant with two images, of which one is missing."""
    manager.put("/etc/sysusers.d/rbdcrypt-a.conf", "u rbdcrypt-a -\n")
    manager.run("systemd-sysusers", "/etc/sysusers.d/rbdcrypt-a.conf")
    with open(cluster.conf) as f:
        manager.put(TENANT + "ceph.conf", f.read())
    manager.put(TENANT + "env", "CEPH_USER=admin\n")
    manager.put(TENANT + "profiles.json", '{"profiles": {}}')
    manager.put(TENANT + "keyring", "[client.admin]\nkey = %s\n"
                % cluster.key(), 0o600)
    manager.put(TENANT + "key", lab.PASSPHRASE, 0o600)
    manager.put("/etc/systemd/system/%s.d/test.conf" % EXPORTS, """
[Service]
LoadCredential=vol:/etc/rbdcrypt/a/key
""")
    manager.call("daemon-reload")
    manager.put(TENANT + "exports.json", exports.text({
        "there": {"image": images.luks().spec, "key": "cred:vol"},
        "missing": {"image": "rbd/no-such-image", "key": "cred:vol"}}))
    yield "/run/rbdcrypt-exports/a/nbd.sock"
    manager.call("stop", EXPORTS, check=False)


def test_a_tenant_is_served_by_a_user_of_its_own(manager, tenant):
    start(manager, EXPORTS)
    assert manager.state(EXPORTS) == "active/running/success"
    pid = manager.show(EXPORTS, "MainPID")[0]
    uid = manager.run("id", "-u", "rbdcrypt-a").stdout.decode().strip()
    who = manager.run("stat", "-c", "%u %a", tenant, "/proc/" + pid)
    assert [line.split()[0] for line in who.stdout.decode().splitlines()] \
        == [uid, uid], who.stdout
    has_limit(manager, pid, "open files", resource.RLIMIT_NOFILE, 262144)


def test_one_image_that_is_missing_leaves_the_unit_active(manager, tenant):
    start(manager, EXPORTS)
    with Client.connect(manager.path(tenant), export="there") as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        with pytest.raises(lab.Refused):
            Client.connect(manager.path(tenant), export="missing")
        lab.await_(lambda: manager.show(EXPORTS, "StatusText") == [
            "2 volumes: 1 failed, 1 serving"], 20, "the status says it")
    assert manager.state(EXPORTS) == "active/running/success"


def test_a_reload_takes_new_exports_and_keeps_the_process(manager, tenant,
                                                          images):
    start(manager, EXPORTS)
    pid = manager.show(EXPORTS, "MainPID")
    one = {"image": images.luks().spec, "key": "cred:vol"}

    def serves(name):
        try:
            with Client.connect(manager.path(tenant), export=name) as c:
                return len(c.read(4096, 0)) == 4096
        except lab.Refused:
            return False
    assert not serves("late")
    manager.put(TENANT + "exports.json", exports.text({"late": one}))
    manager.call("reload", EXPORTS)
    lab.await_(lambda: serves("late"), 20, "the new export is served")
    assert not serves("there")
    # A broken file changes nothing.
    manager.put(TENANT + "exports.json", "{")
    manager.call("reload", EXPORTS)
    lab.await_(lambda: "the exports stay as they were" in
               manager.journal(EXPORTS), 20,
               "the journal says what is wrong")
    manager.await_state(EXPORTS, "active/running/success", 20)
    assert serves("late")
    assert manager.show(EXPORTS, "MainPID", "NRestarts") == [*pid, "0"]
    assert "Reloaded " in manager.journal(EXPORTS)
