# SPDX-License-Identifier: BSD-3-Clause
"""logrotate rotates the audit file with the snippet of contrib/logrotate."""

import contextlib
import glob
import os

import pytest

import lab
from lab.documents import read as document
from lab.trail import of, read


@pytest.fixture
def rotate(tmp_path):
    """rotate(FILE, SERVER...): by the snippet's text, for another place; what
    stands in for systemctl knows the main processes of those units."""
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()

    def run(path, *servers):
        text = document("contrib", "logrotate", "rbdcrypt")
        assert text.count("/var/log/rbdcrypt/*/audit.json {") == 1
        conf = tmp_path / "logrotate.conf"
        conf.write_text(text.replace("/var/log/rbdcrypt/*/audit.json {",
                                     "%s {" % path))
        systemctl.write_text("#!/bin/sh\n" + "".join(
            line + "\n" for line in [
                'echo "$*" >> %s' % (tmp_path / "asked"),
                *("kill -HUP %d" % s.pid for s in servers)]))
        systemctl.chmod(0o755)
        lab.run("logrotate", "--force", "--state", tmp_path / "state", conf,
                env={"PATH": "%s:/usr/sbin:/usr/bin:/bin" % systemctl.parent})
        asked = (tmp_path / "asked").read_text().splitlines()
        assert set(asked) == {"kill --kill-whom=main --signal=HUP "
                              "rbdcrypt-exports@*.service"}, asked
    return run


def comes_and_goes(server, path):
    """A client; its two lines are in the file at PATH."""
    before = len(of(read(path), "detach")) if os.path.exists(path) else 0
    with server.connect() as c:
        c.read(512, 0)
    lab.await_(lambda: os.path.exists(path) and
               len(of(read(path), "detach")) == before + 1, 10,
               "a detach is told in " + str(path))


@pytest.mark.parametrize("kind", [lab.Server, lab.Daemon])
def test_trail_goes_on_in_the_new_file(servers, images, key, rotate, tmp_path,
                                       kind):
    """Two servers share it.  A client that is connected notices nothing."""
    trail = tmp_path / "audit.json"
    both = [servers.start(images.luks(), key, "audit=%s" % trail, kind=kind)
            for _ in range(2)]
    comes_and_goes(both[0], trail)
    old = read(trail)
    client = both[1].connect()
    for name in "audit.json.1", "audit.json.2.gz":
        rotate(trail, *both)
        for server in both:
            lab.await_(lambda s=server: str(trail) in files_of(s), 10,
                       "the new file is open")
        comes_and_goes(both[0], trail)
        assert len(of(read(trail), "attach")) == 1
        assert trail.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / name).exists()
        client.write(lab.pattern(4096), 0)
        client.flush()
    client.close()
    for server in both:
        assert str(tmp_path / "audit.json.1") not in files_of(server)
    assert of(old, "attach")


def files_of(server):
    """The files that it has open; one may be closed meanwhile."""
    found = set()
    for fd in glob.glob("/proc/%d/fd/*" % server.pid):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(fd))
    return found


def test_new_file_that_cannot_be_opened_leaves_the_old_one(
        servers, encrypted, key, tmp_path):
    """The log says so once, and once more when that is over."""
    trail, old = tmp_path / "audit.json", tmp_path / "audit.json.1"
    server = servers.start(encrypted, key, "audit=%s" % trail)
    trail.rename(old)
    trail.symlink_to("/dev/null")
    for _ in range(2):
        os.kill(server.pid, 1)
        server.says("it is a symbolic link: cannot reopen it: the file that "
                    "was open before stays in use")
        comes_and_goes(server, old)
    assert server.stderr().count("cannot reopen it") == 1
    trail.unlink()
    os.kill(server.pid, 1)
    server.says("recovered: audit: %s is reopened" % trail)
    comes_and_goes(server, trail)

