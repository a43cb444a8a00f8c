# SPDX-License-Identifier: BSD-3-Clause
"""Starts that must fail because of the image or the cluster: at once,
with one sentence that names the thing."""

import os
import re
import socket

import pytest

import lab
from lab.servers import names


def test_no_such_image_ends_the_start_with_its_name(servers, key):
    names(servers.refused("rbd/nowhere", key), "nowhere", "image")


def test_no_such_pool_ends_the_start_with_its_name(servers, key):
    names(servers.refused("nopool/nowhere", key), "nopool", "pool")


def test_no_such_namespace_ends_the_start_with_its_name(servers, images, key):
    image = str(images.luks()).split("/")[-1]
    names(servers.refused("rbd/nospace/" + image, key), "nospace",
          "namespace")


def test_no_such_snapshot_ends_the_start_with_its_name(servers, images, key):
    image = images.luks()
    names(servers.refused("%s@nosnap" % image, key), "nosnap", "snapshot")


def test_no_such_user_ends_the_start_with_its_name(servers, images, key):
    names(servers.refused(images.luks(), key, "user=nobody-here"),
          "client.nobody-here")


def test_wrong_cephx_key_ends_the_start_with_the_user(servers, images, key,
                                                      files, cluster):
    cluster.ceph("auth", "get-or-create", "client.fake", "mon",
                 "profile rbd", "osd", "profile rbd")
    keyring = files("keyring", "[client.fake]\nkey = %s\n" % cluster.key())
    names(servers.refused(images.luks(), key, "user=fake",
                          "ceph.keyring=" + keyring), "client.fake")


def test_user_without_capabilities_ends_the_start(servers, images, key,
                                                  files, cluster):
    cluster.ceph("auth", "get-or-create", "client.poor", "mon", "allow r")
    keyring = files("keyring", "[client.poor]\nkey = %s\n"
                    % cluster.key("poor"))
    refusal = servers.refused(images.luks(), key, "user=poor",
                              "ceph.keyring=" + keyring)
    assert re.search("client.poor|image-", refusal.sentence), \
        refusal.sentence


def test_no_configuration_file_ends_the_start_with_its_path(servers, key):
    names(servers.refused("rbd/x", key, "conf=/nonexistent/ceph.conf",
                          conf=False), "/nonexistent/ceph.conf")


def test_configuration_that_is_none_ends_the_start_with_its_path(
        servers, key, files):
    conf = files("broken.conf", b"\x00\xff[[[\n=\n")
    names(servers.refused("rbd/x", key, "conf=" + conf, conf=False), conf)


def test_monitor_that_is_down_ends_the_start_with_its_address(
        servers, key, files):
    with socket.socket() as s:  # bound, so that no other process listens
        s.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % s.getsockname()[1]
        conf = files("ceph.conf", "[global]\nmon_host = v1:%s\n"
                     "auth_client_required = none\n" % address)
        names(servers.refused("rbd/x", key, "conf=" + conf, conf=False),
              address)


def test_monitor_that_is_silent_ends_the_start_with_its_address(
        servers, key, files):
    """Black-holed: connections are made and nothing ever answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        address = "127.0.0.1:%d" % s.getsockname()[1]
        conf = files("ceph.conf", "[global]\nmon_host = v1:%s\n"
                     "auth_client_required = none\n" % address)
        names(servers.refused("rbd/x", key, "conf=" + conf, conf=False),
              address)


def test_osds_that_are_silent_end_the_start(servers, images, key, cluster):
    image = images.luks()
    cluster.freeze()
    try:
        refusal = servers.refused(image, key)
    finally:
        cluster.thaw()
    assert refusal.seconds <= lab.START_LIMIT
    names(refusal, 'while opening the image "%s": the cluster\'s OSDs do not '
          "answer" % image.spec)


def test_a_refused_start_leaves_no_watcher_and_no_lock(servers, images,
                                                       files, cluster):
    image = images.luks()
    servers.refused(image, "key=file:" + files("wrong", "wrong"))
    assert cluster.watchers(image) == []
    assert cluster.lockers(image) == []


def test_migrating_image_ends_the_start(servers, images, key, cluster):
    image = images.luks()
    cluster.rbd("migration", "prepare", image, "rbd/migrated")
    try:
        names(servers.refused("rbd/migrated", key), "migrat")
    finally:
        cluster.rbd("migration", "abort", "--no-progress", "rbd/migrated")


@pytest.mark.parametrize("setting,value", [
    ("rbd_plugins", "pwl_cache"),
    ("rbd_persistent_cache_mode", "rwl"),
    ("rbd_sparse_read_threshold_bytes", "65536"),
])
def test_unsafe_setting_on_the_image_ends_the_start(
        servers, images, key, cluster, setting, value):
    image = images.luks()
    cluster.rbd("config", "image", "set", image, setting, value)
    try:
        names(servers.refused(image, key), setting)
    finally:
        cluster.unset(image, setting)


def test_setting_that_turns_librbds_cache_on_is_refused(
        servers, images, key, cluster):
    """The image's own rbd_cache would win over ours."""
    image = images.luks()
    cluster.rbd("config", "image", "set", image, "rbd_cache", "true")
    names(servers.refused(image, key), "rbd_cache")
    cluster.rbd("config", "image", "set", image, "rbd_cache", "false")
    server = servers.start(image, key)
    with server.connect() as c:
        c.read(4096, 0)
    server.stop()


LONG = "n" * 4096


@pytest.mark.parametrize("spec,word", [
    ("", "image"),
    ("/", "empty"),
    ("rbd/", "empty"),
    ("/image", "empty"),
    ("rbd//image", "empty"),
    ("rbd/ns/im/age", "slashes"),
    ("rbd/image@", "snapshot"),
    ("rbd/image@a@b", "@"),
    ("rbd/image@a/b", "@"),
    pytest.param(LONG, "4096", id="long-image"),
    pytest.param(LONG + "/image", "4096", id="long-pool"),
    pytest.param("image@" + LONG, "4096", id="long-snapshot"),
    ("ima\nge", "control"),
    ("ima\x1b[31mge", "control"),
])
def test_bad_image_name_is_refused_before_anything_is_asked(
        servers, key, spec, word):
    refusal = servers.refused("image=" + spec, key,
                              "conf=/nonexistent/ceph.conf", conf=False)
    names(refusal, word)
    assert refusal.seconds < lab.AT_ONCE
    assert "\x1b" not in "".join(refusal.lines)


@pytest.mark.parametrize("name", ["..", "im?age", "im#age", "im%61ge", "%2e"])
def test_odd_image_names_are_taken_literally(servers, images, key, cluster,
                                             name):
    names(servers.refused("rbd/" + name, key), name)
    made = images.luks()
    cluster.rbd("rename", made, "rbd/" + name)
    try:
        server = servers.start("rbd/" + name, key)
        with server.connect() as c:
            assert c.size == made.size
        server.stop()
    finally:
        cluster.rbd("rename", "rbd/" + name, made)


def test_image_in_a_namespace_is_served(servers, images, key, cluster):
    cluster.call("rbd", "namespace", "create", "rbd/tenant", check=False)
    image = images.luks(namespace="tenant")
    with servers.start(image, key).connect() as c:
        assert c.size == image.size


def test_no_image_at_all_is_refused(servers, key):
    names(servers.refused(key), "image")


def test_image_twice_is_refused(servers, key):
    names(servers.refused("image=rbd/a", "image=rbd/b", key), "image")


def test_the_servers_socket_is_gone_after_a_refusal(servers, key):
    server = servers.begin("rbd/nowhere", key)
    assert server.wait(lab.START_LIMIT) > 0
    assert not os.path.exists(server.socket)
