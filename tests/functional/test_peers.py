# SPDX-License-Identifier: BSD-3-Clause
"""Plaintext leaves only through a local Unix socket unless the
administrator says otherwise."""

import os
import signal

import nbd
import pytest

import lab
from lab.servers import names


def over_tcp(servers, *arguments, options=()):
    port = lab.free_port()
    server = servers.start(
        *arguments, options=["-p", str(port), "-i", "127.0.0.1"]
        + list(options))
    return server, port


def test_tcp_client_is_refused_with_the_reason(servers, images, key):
    server, port = over_tcp(servers, images.luks(), key)
    with pytest.raises(lab.Refused):
        lab.Client.connect(None, port=port)
    line = lab.await_(
        lambda: [s for s in server.lines() if "error" in s], 20,
        "the refusal in the log")[0]
    assert "-U" in line and "peers=" in line
    assert server.stop() == 0


def test_tcp_client_is_served_with_peers_any(servers, images, key):
    image = images.luks()
    _, port = over_tcp(servers, image, key, "peers=any")
    with lab.Client.connect(None, port=port) as c:
        assert c.size == image.size


def test_unix_client_is_served_whatever_peers_says(servers, images, key,
                                                   dump):
    image = images.luks()
    words = ["unix", "any"]
    if dump["rbdcrypt_peer_tls"] == "yes":
        words.append("tls")
    for word in words:
        with servers.start(image, key, "peers=" + word).connect() as c:
            assert c.size == image.size


def certificates(directory):
    """A CA, a server and a client certificate under nbdkit's names."""
    def openssl(*argv):
        lab.run("openssl", *argv, cwd=directory)
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
          "-nodes")
    openssl("req", "-x509", *ec, "-days", "2", "-subj", "/CN=test ca",
            "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    for who in ("server", "client"):
        openssl("req", *ec, "-subj", "/CN=" + who, "-keyout",
                who + "-key.pem", "-out", who + ".csr")
        with open(os.path.join(directory, "ext"), "w") as f:
            f.write("extendedKeyUsage=%sAuth\n"
                    "subjectAltName=IP:127.0.0.1,DNS:localhost\n" % who)
        openssl("x509", "-req", "-in", who + ".csr", "-CA", "ca-cert.pem",
                "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", who + "-cert.pem")
    return str(directory)


def test_peers_tls_wants_a_certificate(servers, images, key, dump, tmp_path):
    image = images.luks()
    if dump["rbdcrypt_peer_tls"] == "no":
        names(servers.refused(image, key, "peers=tls"), "peers=tls", "1.40")
        return
    tls = certificates(tmp_path)
    _, port = over_tcp(servers, image, key, "peers=tls", options=[
        "--tls=on", "--tls-verify-peer", "--tls-certificates=" + tls])
    uri = "nbds://localhost:%d/?tls-certificates=%s" % (port, tls)
    out = lab.run("nbdinfo", "--size", uri, timeout=60).stdout
    assert int(out) == image.size
    with pytest.raises(lab.Refused):  # no TLS at all
        lab.Client.connect(None, port=port)


def test_peers_tls_refuses_tls_without_a_certificate(servers, images, key,
                                                     dump, tmp_path):
    image = images.luks()
    if dump["rbdcrypt_peer_tls"] == "no":
        names(servers.refused(image, key, "peers=tls"), "peers=tls", "1.40")
        return
    tls = certificates(tmp_path)
    _, port = over_tcp(servers, image, key, "peers=tls", options=[
        "--tls=require", "--tls-certificates=" + tls])
    only_ca = tmp_path / "only-ca"
    only_ca.mkdir()
    (only_ca / "ca-cert.pem").write_bytes(
        (tmp_path / "ca-cert.pem").read_bytes())
    r = lab.run("nbdinfo", "--size", "nbds://localhost:%d/?tls-certificates=%s"
                % (port, only_ca), timeout=60, check=False)
    assert r.returncode != 0


def test_socket_pair_counts_as_local(servers, images, key, cluster):
    """nbdkit -s: the process that started it is the client."""
    image = images.luks()
    h = nbd.NBD()
    h.aio_connect_command(["env", "%s=%s" % (lab.MARK, servers.dir),
                           "nbdkit", "-s", servers.plugin, str(image), key,
                           "conf=" + cluster.conf])
    c = lab.Client(h)
    c._poll(h.aio_is_connecting, 90, "connecting")  # it only just starts
    assert h.aio_is_ready()
    assert c.size == image.size
    c.write(lab.pattern(4096), 0)
    c.close()
    lab.await_(lambda: lab.processes_with(str(image) + "\0") == [],
               lab.STOP_LIMIT, "the server ends with its client")
    assert cluster.watchers(image) == []


def test_socket_activation_serves(servers, images, key, cluster):
    image = images.luks()
    h = nbd.NBD()
    h.aio_connect_systemd_socket_activation(
        ["env", "%s=%s" % (lab.MARK, servers.dir), "nbdkit", "-f",
         servers.plugin, str(image), key, "conf=" + cluster.conf])
    c = lab.Client(h)
    c._poll(h.aio_is_connecting, 90, "connecting")
    assert h.aio_is_ready()
    assert c.size == image.size
    c.write(lab.pattern(4096), 0)
    c.flush()
    h.kill_subprocess(signal.SIGTERM)
    lab.await_(lambda: lab.processes_with(str(image) + "\0") == [],
               lab.STOP_LIMIT, "the server ends")
    assert cluster.watchers(image) == []
