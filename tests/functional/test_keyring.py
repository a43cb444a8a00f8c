# SPDX-License-Identifier: BSD-3-Clause
"""The cephx key: found where librados would find it, and to be read nowhere
once the server is connected."""

import glob
import json
import os

import pytest

import lab
from lab import journal


@pytest.fixture(scope="module")
def user(cluster):
    """(a Ceph user of these tests' own, its key)"""
    cluster.ceph("auth", "get-or-create", "client.finder", "mon",
                 "profile rbd", "osd", "profile rbd")
    return "finder", cluster.key("finder")


@pytest.fixture
def keyring(user, files):
    return files("finder.keyring", "[client.%s]\n\tkey = %s\n" % user)


def configuration(cluster, files, *lines):
    """A ceph.conf of the cluster that names no keyring but that of LINES."""
    with open(cluster.conf) as f:
        kept = [line for line in f.read().splitlines()
                if line.startswith(("fsid", "mon_host"))]
    return "conf=" + files("ceph.conf", "\n".join(
        ["[global]", *kept, "[client]", *lines, ""]))


def admin(cluster, path, *command):
    return cluster.call("ceph", "--admin-daemon", path, *command
                        ).stdout.decode()


def memory_files(pid):
    """What the files without a name that a process has open hold."""
    for path in glob.glob("/proc/%d/fd/*" % pid):
        try:
            if "memfd:" in os.readlink(path):
                with open(path, "rb") as f:
                    yield f.read()
        except OSError:
            pass  # closed meanwhile


def sessions(cluster, user):
    """Which clients of USER the monitor has let in."""
    return [s["con_id"] if "con_id" in s else s["name"]
            for s in cluster.json("ceph", "tell", "mon.a", "sessions")
            if s["entity_name"] == "client." + user and s["authenticated"]]


@pytest.mark.parametrize("where", ["keyring", "keyfile", "monitors"])
def test_connected_server_shows_the_cephx_key_nowhere(
        servers, images, key, cluster, user, keyring, files, tmp_path, where):
    """Nor while or after it logs in anew, with settings changed meanwhile."""
    name, secret = user
    asok = str(tmp_path / "asok")
    source = {"keyring": "keyring = " + keyring,
              "keyfile": "keyfile = " + files("keyfile", secret + "\n"),
              "monitors": "keyring = " + keyring}[where]
    server = servers.start(
        images.luks(), key, "user=" + name, "ceph.admin_socket=" + asok,
        configuration(cluster, files, source), conf=False)
    server.works()

    def look():
        settings = json.loads(admin(cluster, asok, "config", "show"))
        assert settings["admin_socket"] == asok
        for command in (("config", "show"), ("config", "diff"),
                        ("config", "get", "key"),
                        ("config", "get", "keyring"), ("log", "dump")):
            assert secret not in admin(cluster, asok, *command), command
        for text in memory_files(server.pid):
            assert secret.encode() not in text
    look()
    if where == "monitors":
        # A setting of the login's own makes librados look for the keyring.
        cluster.ceph("config", "set", "client." + name, "ms_client_mode",
                     "secure crc")
        try:
            lab.await_(lambda: json.loads(admin(
                cluster, asok, "config", "get", "ms_client_mode"))
                == {"ms_client_mode": "secure crc"}, 20, "the setting is here")
            cluster.restart_monitor()
            lab.await_(lambda: sessions(cluster, name), 60,
                       "the server has logged in anew")
            server.works()
            look()
        finally:
            cluster.ceph("config", "rm", "client." + name, "ms_client_mode")
    assert secret not in server.stderr()


def test_key_in_the_configuration_is_not_shown_by_an_admin_socket(
        servers, images, key, cluster, user, files, tmp_path):
    name, secret = user
    conf = configuration(cluster, files, "key = " + secret)
    asok = str(tmp_path / "asok")
    image = images.luks()
    refusal = servers.refused(image, key, "user=" + name, conf,
                              "ceph.admin_socket=" + asok, conf=False)
    assert "admin_socket" in refusal.sentence, refusal.sentence
    assert secret not in "".join(refusal.lines)
    servers.start(image, key, "user=" + name, conf, conf=False).works()


@pytest.mark.parametrize("level", ["10", "1/10"])
def test_logs_of_session_keys_are_refused(servers, images, key, level):
    refusal = servers.refused(images.luks(), key, "ceph.debug_auth=" + level)
    assert "debug_auth" in refusal.sentence, refusal.sentence


def with_etc_ceph(directory):
    """The prefix of a command that sees DIRECTORY as /etc/ceph."""
    return (*journal.UNSHARE, journal.PRIVATE +
            'mount --bind "$0" /etc/ceph\nexec "$@"', directory)


@pytest.fixture
def monitor(cluster):
    address = cluster.option("mon_host")
    return "ceph.mon_host=" + address


@pytest.mark.parametrize("file", [
    "ceph.client.finder.keyring", "ceph.keyring", "keyring", "keyring.bin"])
def test_keyring_is_found_without_a_configuration_file(
        servers, images, key, user, tmp_path, monitor, file):
    (tmp_path / file).write_text("# ours\n[client.other]\nkey = AAAA\n"
                                 '[client.%s] # this\n key="%s" ; it\n' % user)
    servers.start(images.luks(), key, "user=" + user[0], monitor, conf=False,
                  prefix=with_etc_ceph(tmp_path)).works()


def test_start_without_any_keyring_says_where_it_looked(
        servers, images, key, user, tmp_path, monitor):
    (tmp_path / "ceph.keyring").write_text("[client.other]\nkey = AAAA\n")
    refusal = servers.refused(images.luks(), key, "user=" + user[0], monitor,
                              conf=False, prefix=with_etc_ceph(tmp_path))
    for words in ("client.finder", "/etc/ceph/ceph.client.finder.keyring (No "
                  "such file", "/etc/ceph/ceph.keyring (which has none"):
        assert words in refusal.sentence, refusal.sentence


def test_start_without_a_keyring_of_the_configuration_names_it(
        servers, images, key, user, files, cluster):
    refusal = servers.refused(
        images.luks(), key, "user=" + user[0],
        configuration(cluster, files, "keyring = /nonexistent/keyring"),
        conf=False)
    assert "client.finder: looked in /nonexistent/keyring" \
        in refusal.sentence, refusal.sentence


def test_login_that_the_monitors_do_not_offer_is_named(
        servers, images, key, user, keyring, cluster):
    refusal = servers.refused(images.luks(), key, "user=" + user[0],
                              "ceph.keyring=" + keyring,
                              "ceph.auth_client_required=none")
    assert "auth_client_required = none" in refusal.sentence, refusal.sentence
