# SPDX-License-Identifier: BSD-3-Clause
"""Services of a host (lab/host.py), started from their unit files as systemd
would: with its user, credentials, directories, limits, environment and
commands, but without settings that need a namespace or a control group, such
as ProtectSystem=."""

import glob
import os
import re
import resource
import shlex
import signal
import subprocess
import tempfile
import time

from lab.command import await_, run
from lab.manager import Manager
from lab.settings import STOP_LIMIT

LISTS = {"Environment", "EnvironmentFile", "LoadCredential", "ExecStartPre",
         "ExecStartPost"}
LIMITS = {"LimitNOFILE": "nofile", "LimitCORE": "core",
          "LimitMEMLOCK": "memlock"}


def limit(name, value):
    """An argument for prlimit, lowered to what this root may set."""
    number = int(value.removesuffix("M")) << (20 if value[-1] == "M" else 0)
    hard = resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))[1]
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    return "--%s=%d" % (name, number)


def settings(texts):
    """{NAME: value} of the [Service] sections; some values are lists."""
    found = {name: [] for name in LISTS}
    for text in texts:
        section = ""
        text = re.sub(r"^[#;].*\n", "", text, flags=re.M)
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("["):
                section = line
            elif "=" in line and section == "[Service]":
                name, value = line.split("=", 1)
                if name in LISTS:
                    found[name].append(value.strip())
                else:
                    found[name] = value.strip()
    return found


def words(command, environment):
    """Expand a command line: $NAME to any number of words, ${NAME} to part of
    one."""
    for word in shlex.split(command):
        whole = re.fullmatch(r"\$(\w+)", word)
        if whole:
            yield from environment[whole.group(1)].split()
            continue
        word = re.sub(r"\$\{(\w+)\}", lambda m: environment[m.group(1)], word)
        yield word.replace("$$", "$")


class Unit:
    """One service: NAME@INSTANCE."""

    def __init__(self, host, name):
        self.host, self.name = host, name
        template, instance = name.split("@")
        where = host.path("/etc/systemd/system/")
        files = [where + template + "@.service"]
        for directory in (template + "@.service.d", name + ".service.d"):
            files += sorted(glob.glob(where + directory + "/*.conf"))
        texts = []
        for path in files:
            with open(path, encoding="utf-8") as f:
                texts.append(f.read().replace("%i", instance))
        self.settings = settings(texts)
        assert self.settings["Type"] == "notify", self.settings["Type"]
        self.user = self.settings["User"]
        self.runtime = "/run/" + self.settings["RuntimeDirectory"]
        self.credentials = "/run/credentials/%s.service" % name
        self.log = os.path.join(host.dir, name + ".log")
        self.process = None
        self.status = ""  # as it has told

    @property
    def socket(self):
        """Where a process outside finds the socket."""
        return self.host.path(self.runtime + "/nbd.sock")

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def says(self, text, seconds=20):
        await_(lambda: text in self.stderr(), seconds,
               "the log says %r" % text)

    def _directories(self):
        owner = ["-o", self.user, "-g", self.settings["Group"]]
        install = [*self.host.inside, "install"]
        run(*install, "-d", os.path.dirname(self.runtime),
            os.path.dirname(self.credentials))
        run(*install, "-d", *owner, "-m",
            self.settings["RuntimeDirectoryMode"], self.runtime)
        run(*install, "-d", *owner, "-m", "0500", self.credentials)
        # A later one of the same name takes the place of an earlier one.
        for name, path in dict(c.split(":", 1) for c in self.settings[
                "LoadCredential"]).items():
            run(*install, *owner, "-m", "0400", path,
                os.path.join(self.credentials, name))

    def _environment(self):
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
               "CREDENTIALS_DIRECTORY": self.credentials}
        for line in self.settings["Environment"]:
            env.update(word.split("=", 1) for word in shlex.split(line))
        for path in self.settings["EnvironmentFile"]:
            env.update(line.split("=", 1) for line in
                       self.host.read(path).splitlines()
                       if line and line[0] != "#")
        return env

    def _command(self, command, env):
        limits = ["prlimit"] + [limit(LIMITS[n], v) for n, v in
                                self.settings.items() if n in LIMITS]
        # Limits are root's to raise.
        enter = self.host.as_user(self.user)
        at = len(self.host.inside)
        return [*enter[:at], *limits, *enter[at:], *words(command, env)]

    def _ready(self, manager):
        end = time.monotonic() + 60
        while (manager.hear(0.2) or {}).get("READY") != "1":
            assert self.process.poll() is None, \
                "%s ended with status %d:\n%s" \
                % (self.name, self.process.returncode, self.stderr())
            assert time.monotonic() < end, "%s is not ready:\n%s" \
                % (self.name, self.stderr())

    def start(self):
        """Returns when the server is ready and ExecStartPost= has run."""
        self._directories()
        env = self._environment()
        for command in self.settings["ExecStartPre"]:
            run(*self._command(command, env),
                env=self.host.environment(**env))
        with tempfile.TemporaryDirectory(dir=self.host.dir) as directory, \
                Manager(directory) as manager, open(self.log, "wb") as log:
            os.chmod(directory, 0o755)
            os.chmod(manager.name, 0o777)
            self.process = subprocess.Popen(
                self._command(self.settings["ExecStart"], env),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env=self.host.environment(**env, **manager.environment()))
            self._ready(manager)
        for command in self.settings["ExecStartPost"]:
            run(*self._command(command, env),
                env=self.host.environment(**env))
        return self

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        """Stop the server, and return its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(20)
            self.process = None
