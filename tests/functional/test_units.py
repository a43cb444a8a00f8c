# SPDX-License-Identifier: BSD-3-Clause
"""The units of contrib/systemd: systemd's own tools accept them, and their
limits are large enough for a server."""

import collections
import os
import re
import shutil

import pytest

import lab
from lab.documents import read

SERVICES = ["rbdcrypt@.service", "rbdcrypt-exports@.service"]
UNITS = SERVICES + ["rbdcrypt@.socket"]
SYSTEMD = os.path.join(lab.TOP, "contrib", "systemd")
MOST = 2.0  # the exposure


def unit(name):
    return read("contrib", "systemd", name)


def settings(name):
    """{SETTING: its values}, of all sections."""
    found = collections.defaultdict(list)
    for line in unit(name).replace("\\\n", " ").splitlines():
        if re.match(r"[A-Z]\w+=", line):
            setting, value = line.split("=", 1)
            found[setting].append(value)
    return found


def analyze(*argv):
    return lab.run("systemd-analyze", *argv, check=False, timeout=60, env={
        "PATH": "/usr/bin:/bin", "SYSTEMD_LOG_TARGET": "console",
        "LC_ALL": "C.UTF-8"})


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name, tmp_path):
    for n in UNITS:
        shutil.copy(os.path.join(SYSTEMD, n), tmp_path)
    r = analyze("verify", "--man=no",
                str(tmp_path / name.replace("@", "@vol-1")))
    assert (r.returncode, r.stderr) == (0, b""), r.stderr.decode()


def test_verify_finds_a_setting_that_does_not_exist(tmp_path):
    """The test above can fail."""
    path = tmp_path / "rbdcrypt@vol-1.service"
    path.write_text(unit(SERVICES[0]).replace("ProtectClock=", "ProtectClok="))
    assert b"ProtectClok" in analyze("verify", "--man=no", str(path)).stderr


def exposure(path):
    r = analyze("security", "--offline=yes", "--no-pager", path)
    out = r.stdout.decode()
    found = re.search(r"exposure level for \S+: ([\d.]+)", out)
    assert found, out + r.stderr.decode()
    return float(found.group(1)), out


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_unit_is_exposed_to(name, tmp_path):
    level, out = exposure(os.path.join(SYSTEMD, name))
    assert level <= MOST, out
    without = tmp_path / name
    without.write_text(re.sub("^SystemCall.*\n", "", unit(name), flags=re.M))
    assert exposure(str(without))[0] > level


def test_all_services_are_closed_alike():
    begin = "# What librados and librbd need"
    one, other = (unit(n)[unit(n).index(begin):] for n in SERVICES)
    assert one == other


@pytest.mark.parametrize("name", UNITS)
def test_guests_come_after_and_go_before(name):
    before = settings(name)["Before"][0].split()
    assert {"libvirtd.service", "virtqemud.service",
            "libvirt-guests.service"} <= set(before)


def test_a_refused_key_is_not_tried_again_and_an_outage_for_ever():
    nbd = read("plugin", "nbd", "nbd.h")
    status = re.search(r"define EXIT_REFUSED (\d+)", nbd).group(1)
    one = settings(SERVICES[0])
    assert one["RestartPreventExitStatus"] == [status]
    assert "on-failure=exit" in one["ExecStart"][0].split()
    for name in SERVICES:
        has = settings(name)
        assert has["StartLimitIntervalSec"] == ["0"]
        assert has["Restart"] == ["on-failure"]
        assert int(has["RestartSec"][0]) >= 5
    socket = settings(UNITS[2])
    often = int(socket["TriggerLimitIntervalSec"][0]) \
        / int(one["RestartSec"][0])
    assert often < int(socket["TriggerLimitBurst"][0]) < 2 * often


@pytest.mark.parametrize("name", SERVICES)
def test_a_watchdog_kills_at_once(name):
    """The default is SIGABRT, which nbdkit's own abort sends us."""
    has = settings(name)
    assert has["Type"] == ["notify"] and int(has["WatchdogSec"][0]) >= 10
    assert has["WatchdogSignal"] == ["SIGKILL"]


# ---------------------------------------------------------------------
# Limits.

def sums(name):
    """{SUM: what the comment says it is}, of "200 * (600 + 20) = 124,000"."""
    comments = " ".join(s.lstrip("# ") for s in unit(name).splitlines()
                        if s.startswith("#"))
    return {s.strip(): int(n.replace(",", "")) for s, n in re.findall(
        r"((?:\d+ [*+] |\()[\d+*() ]+?)(?: KiB)? = ([\d,]+)", comments)}


@pytest.mark.parametrize("name", SERVICES)
def test_the_arithmetic_is_right_and_the_limits_follow(name):
    found = sums(name)
    assert len(found) >= 2, found
    for text, result in found.items():
        assert eval(text) == result, text  # digits, and nothing else
    descriptors, threads = list(found.values())[:2]
    has = settings(name)
    assert descriptors * 1.9 < int(has["LimitNOFILE"][0])
    assert threads * 1.5 < int(has["TasksMax"][0])
    if name == SERVICES[1]:
        kib = list(found.values())[2]
        assert kib < int(has["LimitMEMLOCK"][0].rstrip("M")) * 1024


def threads(server):
    return len(os.listdir("/proc/%d/task" % server.pid))


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.pid))


def locked(server):
    with open("/proc/%d/status" % server.pid) as f:
        return int(re.search(r"^VmLck:\s+(\d+) kB$", f.read(), re.M).group(1))


def test_what_a_connection_and_an_export_cost_is_as_the_unit_says(
        servers, images, key):
    text = " ".join(unit(SERVICES[1]).replace("\n# ", " ").split())

    def said(pattern):
        return int(re.search(pattern, text).group(1))
    server = servers.start(images.luks(), key, "recheck=0")
    with server.connect() as c:
        c.read(4096, 0)
        one = threads(server), descriptors(server)
        with server.connect() as d:
            d.read(4096, 0)
            two = threads(server)
            lab.await_(lambda: descriptors(server) - one[1] <= 3, 10,
                       "a connection has a socket and a pipe")
    assert two - one[0] <= said(r"(\d+) of a connection")
    # With one connection, of which the workers are nbdkit's.
    assert one[0] <= said(r"Threads: (\d+) of the process") \
        + said(r"(\d+) of an open export") + said(r"(\d+) of a connection")
    assert one[1] <= said(r"and (\d+) others") + 3 + 10
    assert locked(server) <= said(r"lock memory: (\d+) KiB")


# ---------------------------------------------------------------------
# Users and directories: below a directory of the test's own.

def test_users_are_made(tmp_path):
    (tmp_path / "etc").mkdir()
    lab.run("systemd-sysusers", "--root=%s" % tmp_path,
            os.path.join(SYSTEMD, "sysusers.d", "rbdcrypt.conf"))
    line = (tmp_path / "etc" / "passwd").read_text().strip().split(":")
    assert line[0] == "rbdcrypt" and int(line[2]) not in (0, 65534)
    assert line[6] == "/usr/sbin/nologin"
    assert settings(SERVICES[0])["User"] == [line[0]]


def test_directories_are_made(tmp_path):
    lab.run("systemd-tmpfiles", "--root=%s" % tmp_path, "--create",
            os.path.join(SYSTEMD, "tmpfiles.d", "rbdcrypt.conf"))
    made = {os.path.relpath(os.path.join(d, n), tmp_path)
            for d, names, _ in os.walk(tmp_path) for n in names}
    assert made == {"etc", "etc/rbdcrypt", "run", "run/rbdcrypt",
                    "run/rbdcrypt-exports"}
    for name in SERVICES:
        assert "run/" + settings(name)["RuntimeDirectory"][0].split("/")[0] \
            in made


# ---------------------------------------------------------------------

@pytest.mark.parametrize("listen", ["-U", ""])
def test_a_stale_socket_goes_and_one_of_systemds_stays(listen, tmp_path):
    path = tmp_path / "nbd.sock"
    path.touch()
    [command] = [c for c in settings(SERVICES[0])["ExecStartPre"] if "sh" in c]
    script = re.match(r"/bin/sh -c '(.*)'$", command).group(1)
    script = script.replace("$$", "$").replace("/run/rbdcrypt/%i/nbd.sock",
                                               str(path))
    lab.run("sh", "-c", script, env={"PATH": "/bin", "LISTEN": listen})
    assert path.exists() == (listen == "")
