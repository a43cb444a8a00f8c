# SPDX-License-Identifier: BSD-3-Clause
"""Every parameter: what it does, and what it refuses."""

import os
import re

import nbd
import pytest

import lab
from lab.servers import names

WORDS = {
    "cache": ["auto", "none", "writearound"],
    "trim": ["auto", "on", "off"],
    "extents": ["auto", "off"],
    "engine": ["auto", "librbd", "openssl"],
    "zero": ["encrypt"],
}
ALL = ["image", "key", "profiles", "conf", "user", "cluster",
       "ceph.rbd_op_threads", "engine", "cache", "behind", "trim", "zero",
       "extents", "peers", "unlock-limit", "shutdown-timeout"]
FIRST = {"image": "rbd/x", "key": "file:/x", "profiles": "/x", "conf": "/x",
         "user": "x", "cluster": "x", "ceph.rbd_op_threads": "1",
         "engine": "librbd", "cache": "none", "behind": "1M", "trim": "off",
         "zero": "encrypt", "extents": "off", "peers": "unix",
         "unlock-limit": "10", "shutdown-timeout": "10"}


@pytest.mark.parametrize("name,word", [
    (n, w) for n, words in WORDS.items() for w in words])
def test_every_word_of_a_parameter_serves(servers, images, key, name, word):
    image = images.luks()
    with servers.start(image, key, "%s=%s" % (name, word)).connect() as c:
        assert c.size == image.size
        c.write(lab.pattern(4096), 0)
        c.flush()
        assert c.read(4096, 0) == lab.pattern(4096)


def test_holes_for_zeros_need_the_engine_that_reads_them(servers, key):
    for engine in (), ("engine=auto",), ("engine=librbd",):
        names(servers.refused("rbd/x", key, "zero=punch", *engine),
              "zero=punch", "engine=openssl")


@pytest.mark.parametrize("name", ["engine", "cache", "behind", "trim", "zero",
                                  "extents", "peers"])
def test_another_word_is_refused(servers, key, name):
    names(servers.refused("rbd/x", key, name + "=perhaps"), name, "perhaps")


def test_extents_on_serves_or_says_what_it_takes(servers, images, key, dump):
    image = images.luks()
    if dump["rbdcrypt_diff_iterate3"] == "no":
        names(servers.refused(image, key, "extents=on"), "extents=on",
              "rbd_diff_iterate3")
        return
    with servers.start(image, key, "extents=on").connect() as c:
        assert c.handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)


@pytest.mark.parametrize("name", [n for n in ALL if "ceph." not in n])
def test_empty_value_is_refused(servers, name):
    names(servers.refused(name + "="), name)


def test_empty_value_of_a_ceph_option_is_ceph_s_own_business(
        servers, encrypted, key):
    server = servers.start(encrypted, key, "ceph.log_file=")
    with server.connect() as c:
        assert c.size == encrypted.size
    names(servers.refused(encrypted, key, "ceph.rbd_op_threads="),
          "rbd_op_threads")


@pytest.mark.parametrize("name", [n for n in ALL if n != "key"])
def test_parameter_given_twice_is_refused(servers, name):
    value = "%s=%s" % (name, FIRST[name])
    names(servers.refused(value, value, conf=False), name, "twice")


@pytest.mark.parametrize("name", [
    pytest.param("n" * 4096, id="4-KiB"), "unknown", "Image", "a.b-c_d",
    "lock", "export"])
def test_unknown_parameter_is_refused(servers, key, name):
    refusal = servers.refused("rbd/x", key, name + "=1")
    names(refusal, "unknown", name[:32])
    assert len(refusal.sentence) < 1200


@pytest.mark.parametrize("name", ["profiles", "conf", "user", "cluster",
                                  "ceph.rbd_op_threads", "unlock-limit",
                                  "shutdown-timeout", "cache"])
def test_value_of_4_kib_is_refused(servers, images, key, name):
    refusal = servers.refused(
        images.luks(), "key=t:x" if name == "profiles" else key,
        "%s=%s" % (name, "v" * 4096), conf=name != "conf")
    names(refusal, name.replace("ceph.", ""))
    assert len(refusal.sentence) < 1200


@pytest.mark.parametrize("value", [
    "0", "-1", "3601", "ten", "10,", ",10", "10,0", "10,2000000", "10,10,10",
    "1e3", " 10", "99999999999999999999"])
def test_bad_unlock_limit_is_refused(servers, key, value):
    names(servers.refused("rbd/x", key, "unlock-limit=" + value),
          "unlock-limit")


def test_unlock_limit_bounds_time_and_memory(servers, images, key):
    image = images.costly()
    names(servers.refused(image, key, "unlock-limit=3600,64"),
          "unlock-limit")
    server = servers.start(image, key, "unlock-limit=3600,4096")
    with server.connect(timeout=lab.UNLOCK_LIMIT) as c:
        assert c.size == image.size


@pytest.mark.parametrize("name,most", [
    ("shutdown-timeout", 3600), ("recheck", 86400), ("grace", 2592000)])
def test_bad_seconds_are_refused(servers, key, name, most):
    for value in ("-1", str(most + 1), "soon", "1.5", " 1", "+1", "0x10",
                  "99999999999999999999", "4294967297", "1w", "40d"):
        names(servers.refused("rbd/x", key, "%s=%s" % (name, value)),
              "%s=%s: must be " % (name, value), " to %d seconds" % most,
              "a number may end in s, m, h or d, as in 5m")


def test_a_shutdown_takes_a_second_at_least(servers, key):
    names(servers.refused("rbd/x", key, "shutdown-timeout=0"),
          "must be 1 to 3600 seconds")


def test_too_many_slashes_name_the_image_once(servers, key):
    sentence = servers.refused("a/b/c/d", key).sentence
    assert sentence.count("image \"a/b/c/d\"") == 1
    assert "image: image" not in sentence


def test_no_configuration_says_where_it_was_looked_for(servers, key):
    names(servers.refused("rbd/x", key, "cluster=none", conf=False,
                          env={"CEPH_CONF": None}),
          "/etc/ceph/none.conf", "~/.ceph/none.conf", "ceph.mon_host=")
    names(servers.refused("rbd/x", key, conf=False,
                          env={"CEPH_CONF": "/nonexistent/x.conf"}),
          "/nonexistent/x.conf")


def test_user_names_the_cephx_user(servers, images, key, files, cluster):
    keyring = files("keyring", cluster.keyring("reader",
                                               "profile rbd-read-only"))
    image = images.luks()
    for user in ("reader", "client.reader"):
        server = servers.start(image, key, "user=" + user,
                               "ceph.keyring=" + keyring, options=["-r"])
        with server.connect() as c:
            assert c.size == image.size
        assert server.lines() == []


def test_user_that_may_only_read_is_served_read_only(
        servers, images, key, files, cluster):
    keyring = files("keyring", cluster.keyring("reader",
                                               "profile rbd-read-only"))
    image = images.luks()
    server = servers.start(image, key, "user=reader",
                           "ceph.keyring=" + keyring)
    for _ in range(2):
        with server.connect() as c:
            assert c.size == image.size
            assert c.handle.is_read_only()
    [line] = server.lines()
    assert "serving %s read-only: the Ceph user's" % image.spec in line


def test_cluster_is_part_of_the_search_for_the_configuration(
        servers, images, key, cluster, tmp_path):
    home = tmp_path / "home"
    (home / ".ceph").mkdir(parents=True)
    os.symlink(cluster.conf, home / ".ceph" / "elsewhere.conf")
    image = images.luks()
    server = servers.start(image, key, "cluster=elsewhere", conf=False,
                           env={"HOME": str(home)})
    with server.connect() as c:
        assert c.size == image.size
    names(servers.refused(image, key, "cluster=nowhere", conf=False,
                          env={"HOME": str(home)}), "nowhere")


def test_configuration_from_the_environment(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, conf=False,
                           env={"CEPH_CONF": cluster.conf})
    with server.connect() as c:
        assert c.size == image.size


def test_ceph_option_is_set_and_unknown_ones_are_refused(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, "ceph.rbd_cache=false")
    with server.connect() as c:
        assert c.size == image.size
    names(servers.refused(image, key, "ceph.no_such_option=1"),
          "no_such_option")
    names(servers.refused(image, key, "ceph.rbd_op_threads=many"),
          "rbd_op_threads")


def test_ceph_option_overrides_the_configuration_file(
        servers, images, key, files, cluster):
    with open(cluster.conf) as f:
        text = re.sub(r"mon_host = .*", "mon_host = v1:127.0.0.1:1", f.read())
    conf = files("other.conf", text)
    image = images.luks()
    server = servers.start(image, key, "conf=" + conf,
                           "ceph.mon_host=" + cluster.option("mon_host"),
                           conf=False)
    with server.connect() as c:
        assert c.size == image.size


def test_trim_on_offers_it_and_keeps_neighbours(servers, images, key):
    with servers.start(images.luks(), key, "trim=on").connect() as c:
        assert c.handle.can_trim()
        c.write(lab.pattern(8 * lab.MIB), 0)
        c.trim(4 * lab.MIB, 2 * lab.MIB)
        assert c.read(2 * lab.MIB, 0) == lab.pattern(8 * lab.MIB)[
            :2 * lab.MIB]
        assert c.read(2 * lab.MIB, 6 * lab.MIB) == lab.pattern(
            8 * lab.MIB)[6 * lab.MIB:]


def test_trim_off_refuses_it_on_plain_images(servers, images):
    server = servers.start(images.plain(), "key=none", "trim=off")
    with server.connect() as c:
        assert not c.handle.can_trim()


def test_a_clone_takes_a_key_for_each_layer(servers, images, files, cluster,
                                            dump):
    parent = images.luks(passphrase=b"parent")
    cluster.rbd("snap", "create", "--no-progress", "%s@base" % parent)
    cluster.rbd("snap", "protect", "%s@base" % parent)
    child = "rbd/child-of-" + parent.spec.split("/")[-1]
    cluster.rbd("clone", "%s@base" % parent, child)
    keys = ["key=file:" + files("parent", b"parent")]
    try:
        if dump["rbdcrypt_encryption_load2"] == "yes":
            cluster.rbd("encryption", "format", child, "luks2",
                        files("child", b"child"), timeout=120)
            keys.insert(0, "key=file:" + files("child", b"child"))
            server = servers.start(child, *keys)
            with server.connect(timeout=lab.UNLOCK_LIMIT) as c:
                c.write(lab.pattern(4096), 0)
                assert c.read(4096, 0) == lab.pattern(4096)
            server.stop()
        else:
            names(servers.refused(child, keys[0], keys[0]), "key")
    finally:
        cluster.rbd("rm", "--no-progress", child)
        cluster.rbd("snap", "unprotect", "%s@base" % parent)


def test_more_than_sixteen_keys_are_refused(servers):
    names(servers.refused("rbd/x", *["key=file:/x"] * 17), "layers")


def test_help_has_a_line_for_every_parameter(plugin):
    text = lab.run("nbdkit", plugin, "--help").stdout.decode()
    for name in ALL:
        name = name.replace("ceph.rbd_op_threads", "ceph.OPTION")
        assert re.search(r"^(\[image=\]|%s=)" % re.escape(name), text,
                         re.M), name
    # The man page's heads, which test-docs.sh holds together with the code.
    for kind in ("file:PATH", "line:PATH", "fd:N", "cred:NAME",
                 "bao:MOUNT/PATH[#FIELD]", "vault:MOUNT/PATH[#FIELD]"):
        assert re.search(r"^ +%s,$" % re.escape(kind), text, re.M), kind


def test_dump_plugin_tells_versions_and_abilities(dump):
    assert dump["name"] == "rbdcrypt"
    assert re.match(r"\d+\.\d+\.\d+", dump["rbdcrypt_librbd_version"])
    for name in ("encryption_load2", "diff_iterate3", "peer_tls"):
        assert dump["rbdcrypt_" + name] in ("yes", "no")
    providers = dump["rbdcrypt_providers"].split(",")
    assert {"file", "line", "fd", "cred", "openbao"} <= set(providers)


def test_only_plugin_init_and_debug_flags_are_exported(plugin):
    out = lab.run("nm", "-D", "--defined-only", plugin).stdout.decode()
    symbols = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    assert "plugin_init" in symbols
    assert all(s == "plugin_init" or s.startswith("rbdcrypt_debug_")
               for s in symbols), symbols


def test_plugin_is_linked_with_hardening(plugin):
    out = lab.run("readelf", "-dlW", plugin).stdout.decode()
    assert re.search(r"FLAGS.*\bBIND_NOW\b", out)
    assert "GNU_RELRO" in out
    assert re.search(r"GNU_STACK.* RW ", out)
    assert "NODELETE" in out
    assert "RPATH" not in out and "RUNPATH" not in out
