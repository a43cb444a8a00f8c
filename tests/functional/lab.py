# SPDX-License-Identifier: BSD-3-Clause
"""What the functional tests work with: a real Ceph cluster, a real
OpenBao, encrypted images, and nbdkit serving them.

Every wait here has a limit, and everything that is started is ended.
"""

import errno
import glob
import hashlib
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import nbd

HERE = os.path.dirname(os.path.abspath(__file__))
ENV = os.path.join(HERE, "..", "env")
MIB = 1 << 20

# The plugin's own limits (see the manual), and what a loaded machine may
# add to them: the 10 s of a start begin once Ceph's libraries are loaded.
START_LIMIT = 16
STOP_LIMIT = 34

# What a client waits for a costly unlock: up to 20 s for its turn on this
# host, and then for what a busy one gives it.
UNLOCK_LIMIT = 120

# Sooner than what waits for anything: the limits of a question and of a
# start are 10 s.  How much sooner is the machine's business.
AT_ONCE = 8

PASSPHRASE = b"correct horse battery staple"
# What tests choose at random: the same number, the same choice.
SEED = os.environ.get("RBDCRYPT_SEED") or str(
    random.SystemRandom().randrange(1 << 30))
# Processes carry this in their environment: how leftovers are found.
MARK = "RBDCRYPT_LAB"


def run(*argv, timeout=60, check=True, **kwargs):
    """subprocess.run with a limit and readable failures."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    if "input" not in kwargs:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    r = subprocess.run([str(a) for a in argv], timeout=timeout, **kwargs)
    if check and r.returncode != 0:
        raise AssertionError(
            "%s: status %d\n%s%s"
            % (" ".join(map(str, argv)), r.returncode,
               (r.stdout or b"").decode(errors="replace"),
               (r.stderr or b"").decode(errors="replace")))
    return r


def qemu_luks(secret, path, size, call=run):
    """A LUKS1 image as QEMU makes it; SECRET is the object "s" or "key".

    It times 32,768 iterations by its own CPU time, whose clock may not
    have moved after so few: then it gives up, and is asked again.
    """
    ident = re.search(r"\bid=(\w+)", secret)[1]

    def made():
        r = call("qemu-img", "create", "-q", "-f", "luks", "--object", secret,
                 "-o", "key-secret=%s,cipher-alg=aes-256,cipher-mode=xts,"
                 "ivgen-alg=plain64,iter-time=10" % ident, path, str(size),
                 check=False)
        assert r.returncode == 0 or b"accurate CPU usage" in r.stderr, \
            r.stderr.decode(errors="replace")
        return r.returncode == 0
    await_(made, 60, "qemu-img makes a LUKS image")


def bookworm_python():
    """The beginning of a command: Debian 12's Python, the only one that
    has what OpenStack and PyKMIP want.

    On another release it runs in Debian 12's root, in the same network
    and among the same processes.  Of our files that root has the lab
    directory only, at the same path: hand a program over with "-c", on
    standard input, or as a file below the lab directory.
    """
    root = os.environ.get("RBDCRYPT_BOOKWORM")
    return (["chroot", root] if root else []) + ["/usr/bin/python3"]


def await_(condition, seconds, what):
    """Poll until CONDITION() is true; returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, \
            "not within %g s: %s" % (seconds, what)
        time.sleep(0.02)


def free_port():
    """Below the range from which the kernel gives ports to connections,
    which could take it before a server does."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def pattern(length, seed=0):
    """LENGTH bytes that look random, the same for the same SEED."""
    return hashlib.shake_128(b"%d" % seed).digest(length)


def all_stopped(pid):
    """Each thread: on a busy machine they go on for a while."""
    for stat in glob.glob("/proc/%d/task/*/stat" % pid):
        try:
            with open(stat) as f:
                if f.read().rsplit(")", 1)[1].split()[0] != "T":
                    return False
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    return True


class Cluster:
    """The one-node Ceph of tests/env/cluster."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.conf = os.path.join(self.dir, "ceph.conf")
        self.env = dict(os.environ, CEPH_CONF=self.conf)
        self.env.pop("CEPH_ARGS", None)
        self.keys = {}  # of users

    def up(self):
        run(os.path.join(ENV, "cluster"), "up", self.dir, timeout=300)

    def down(self):
        run(os.path.join(ENV, "cluster"), "down", self.dir, timeout=120)

    def call(self, *argv, **kwargs):
        return run(*argv, env=self.env, **kwargs)

    def rbd(self, *argv, **kwargs):
        return self.call("rbd", *argv, **kwargs).stdout

    def ceph(self, *argv, **kwargs):
        return self.call("ceph", *argv, **kwargs).stdout

    def json(self, *argv):
        return json.loads(self.call(*argv, "--format", "json").stdout)

    def option(self, name):
        """NAME's value in the [global] section of the configuration."""
        with open(self.conf) as f:
            return re.search(r"^%s = (.*)$" % name, f.read(), re.M).group(1)

    def key(self, user="admin"):
        if user not in self.keys:
            self.keys[user] = self.ceph("auth", "get-key",
                                        "client." + user).decode().strip()
        return self.keys[user]

    def keyring(self, user, osd, mon="profile rbd"):
        """The text of a keyring of USER, who is made once."""
        if user not in self.keys:
            self.ceph("auth", "get-or-create", "client." + user, "mon", mon,
                      "osd", osd)
        return "[client.%s]\nkey = %s\n" % (user, self.key(user))

    def watchers(self, image):
        """Who has the image open for writing."""
        status = self.json("rbd", "status", image)["watchers"]
        return status if isinstance(status, list) else list(status.values())

    def lockers(self, image):
        locks = self.json("rbd", "lock", "ls", image)
        return locks if isinstance(locks, list) else list(locks.values())

    def unset(self, image, setting):
        """Remove a setting of an image behind librbd's back, which cannot
        open an image whose rbd_plugins it has not."""
        pool, name = str(image).split("/")
        ident = self.call("rados", "-p", pool, "get", "rbd_id." + name,
                          "-").stdout[4:].decode()
        self.call("rados", "-p", pool, "rmomapkey", "rbd_header." + ident,
                  "metadata_conf_" + setting)

    def blocklist(self, address):
        self.ceph("osd", "blocklist", "add", address)
        self.told()

    def told(self):
        """Wait until every OSD knows what the monitors decided."""
        epoch = self.json("ceph", "osd", "dump")["epoch"]

        def newest(osd):  # a string since Ceph 20
            return int(self.json("ceph", "tell", "osd.%d" % osd,
                                 "status")["newest_map"])
        for osd in self.json("ceph", "osd", "ls"):
            await_(lambda o=osd: newest(o) >= epoch,
                   30, "osd.%d has the map %d" % (osd, epoch))

    def osd_pids(self):
        pids = []
        for f in glob.glob(os.path.join(self.dir, "osd.*.pid")):
            with open(f) as g:
                pids.append(int(g.read()))
        return pids

    def freeze(self):
        """The OSDs stop answering; their connections stay."""
        for pid in self.osd_pids():
            os.kill(pid, signal.SIGSTOP)
            # Not in the middle of a write to a slow disk.
            await_(lambda p=pid: all_stopped(p), 60, "an OSD stops")

    def await_asked(self, admin_socket, number=1):
        """Wait until NUMBER requests for data of a server with this
        ceph.admin_socket are under way to OSDs that are frozen: nbdkit logs a
        request before the plugin has it."""
        def asked():
            ops = json.loads(self.ceph("--admin-daemon", admin_socket,
                                       "objecter_requests"))["ops"]
            return sum(op["object_id"].startswith("rbd_data.") for op in ops)
        await_(lambda: asked() >= number, 30, "the OSDs are asked")

    def thaw(self):
        for pid in self.osd_pids():
            os.kill(pid, signal.SIGCONT)
        self.healthy()

    def kill_osds(self):
        """Their connections break, and nobody listens."""
        for pid in self.osd_pids():
            os.kill(pid, signal.SIGKILL)
            await_(lambda p=pid: not os.path.exists("/proc/%d/exe" % p), 30,
                   "an OSD ends")
        # Else the monitors believe for a while that all is well.
        self.ceph("osd", "down", "all")

    def start_osds(self):
        for f in glob.glob(os.path.join(self.dir, "osd.*", "keyring")):
            self.call("ceph-osd", "-c", self.conf, "--keyring", f, "-i",
                      os.path.dirname(f).rsplit(".", 1)[1], timeout=120)
        self.healthy()

    def restart_monitor(self):
        """Every client logs in anew."""
        with open(os.path.join(self.dir, "mon.a.pid")) as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGTERM)
        await_(lambda: not os.path.exists("/proc/%d/exe" % pid), 30,
               "the monitor ends")
        self.call("ceph-mon", "-c", self.conf, "-i", "a")
        self.healthy()

    def healthy(self):
        """Wait until it is."""
        run(os.path.join(ENV, "cluster"), "wait", self.dir, timeout=200)

    def erasure_pool(self, name="ec"):
        """An erasure-coded data pool, k=2 m=1, on three OSDs of its own."""
        if name in self.json("ceph", "osd", "pool", "ls"):
            return name
        for _ in range(3):
            run(os.path.join(ENV, "cluster"), "osd", self.dir, name,
                timeout=200)
        self.ceph("osd", "erasure-code-profile", "set", name, "k=2", "m=1",
                  "crush-root=" + name, "crush-failure-domain=osd")
        self.ceph("osd", "pool", "create", name, "8", "8", "erasure", name)
        self.ceph("osd", "pool", "set", name, "allow_ec_overwrites", "true")
        self.ceph("osd", "pool", "application", "enable", name, "rbd")
        self.healthy()
        return name


class Image:
    """One image in the cluster and what opens it."""

    def __init__(self, cluster, spec, passphrase, size, offset):
        self.cluster = cluster
        self.spec = spec
        self.passphrase = passphrase
        self.size = size  # bytes of payload
        self.offset = offset  # bytes before the payload

    def __str__(self):
        return self.spec

    def raw(self):
        """What RADOS holds."""
        return self.cluster.rbd("export", "--no-progress", self.spec, "-")

    def overwrite(self, data, offset=0, size=None):
        """Write DATA to the image itself, as a client without a key."""
        self.cluster.rbd(
            "import-diff", "--no-progress", "-", self.spec,
            input=b"rbd diff v1\ns" +
            struct.pack("<Q", size or self.size + self.offset) +
            b"w" + struct.pack("<QQ", offset, len(data)) + data + b"e")


class Images:
    """Makes images.  SIZE is that of the whole image, header included.

    They are small and stay until the cluster goes: the watch of a killed
    server would keep them from being removed for a while anyway.
    """

    def __init__(self, cluster, directory, numbers):
        self.cluster = cluster
        self.dir = str(directory)
        self.numbers = numbers  # unique in the session

    def name(self, pool=None, namespace=None):
        name = "image-%d" % next(self.numbers)
        return "/".join(p for p in (pool or "rbd", namespace, name) if p)

    def _keep(self, spec, passphrase, size, offset):
        return Image(self.cluster, spec, passphrase, size - offset, offset)

    def plain(self, size=64 * MIB, args=(), pool=None):
        spec = self.name(pool)
        self.cluster.rbd("create", "-s", "%dB" % size, *args, spec)
        return self._keep(spec, None, size, 0)

    def encrypted_by_id(self, passphrase, size=64 * MIB, pool=None):
        """An image whose passphrase depends on its id: PASSPHRASE(ID)."""
        image = self.plain(size, pool=pool)
        image.id = self.cluster.json("rbd", "info", image.spec)["id"]
        image.passphrase = passphrase(image.id)
        image.offset = 4 * MIB
        image.size -= image.offset
        with open(self.header(2, image.passphrase, size), "rb") as f:
            header = f.read(image.offset)
        # "rbd import" makes an image with another id.
        image.overwrite(header)
        return image

    def imported(self, path, args=(), pool=None, namespace=None):
        """The file's bytes, whatever they are."""
        spec = self.name(pool, namespace)
        self.cluster.rbd("import", "--no-progress", *args, path, spec)
        return self._keep(spec, None, os.path.getsize(path), 0)

    def header(self, version=2, passphrase=PASSPHRASE, size=64 * MIB,
               offset=4 * MIB, sector=None, args=()):
        """A file that cryptsetup formatted; made once per kind."""
        kind = repr((version, passphrase, size, offset, sector, args))
        path = os.path.join(
            self.dir, hashlib.sha256(kind.encode()).hexdigest()[:16])
        if not os.path.exists(path):
            with open(path + ".new", "wb") as f:
                f.truncate(size)
            argv = ["cryptsetup", "luksFormat", "-q", "--type",
                    "luks%d" % version, "--cipher", "aes-xts-plain64",
                    "--key-size", "512", "--offset", str(offset // 512),
                    "--key-file", "-"]
            if "--pbkdf" not in args:
                argv += ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
                         "1000"]
            if version == 2:
                argv += ["--sector-size", str(sector or 4096)]
            run(*argv, *args, path + ".new", input=passphrase, timeout=120)
            os.rename(path + ".new", path)
        return path

    def luks(self, version=2, passphrase=PASSPHRASE, size=64 * MIB,
             offset=4 * MIB, sector=None, args=(), format_args=(), pool=None,
             namespace=None):
        """Formatted by cryptsetup with a cheap PBKDF2."""
        path = self.header(version, passphrase, size, offset, sector,
                           format_args)
        image = self.imported(path, args, pool, namespace)
        return self._keep(image.spec, passphrase, size, offset)

    def clone(self, image, args=()):
        """A clone of a snapshot "base" of IMAGE, which is made here."""
        base = image.spec + "@base"
        if "base" not in [s["name"] for s in self.cluster.json(
                "rbd", "snap", "ls", image.spec)]:
            self.cluster.rbd("snap", "create", "--no-progress", base)
        spec = self.name()
        self.cluster.rbd("clone", "--rbd-default-clone-format", "2", *args,
                         base, spec)
        return self._keep(spec, image.passphrase, image.size + image.offset,
                          image.offset)

    def costly(self, passes=4):
        """By what is told of it, and yet soon done: each of PASSES is said
        to take a third of a second.  The unlock takes 256 MiB where as much
        was free: cryptsetup takes less then.  (What librbd formats costs as much
        as the machine can do at that moment.)"""
        return self.luks(format_args=(
            "--pbkdf", "argon2id", "--pbkdf-memory", "262144",
            "--pbkdf-force-iterations", str(passes),
            "--pbkdf-parallel", "1"))

    def librbd(self, version=2, passphrase=PASSPHRASE, size=64 * MIB,
               args=()):
        """Formatted by librbd, which takes long: done once per kind."""
        kind = repr(("librbd", version, passphrase, size))
        path = os.path.join(
            self.dir, hashlib.sha256(kind.encode()).hexdigest()[:16])
        if not os.path.exists(path):
            image = self.plain(size)
            with open(path + ".key", "wb") as f:
                f.write(passphrase)
            self.cluster.rbd("encryption", "format", image.spec,
                             "luks%d" % version, path + ".key", timeout=170)
            self.cluster.rbd("export", "--no-progress", image.spec, path)
        image = self.imported(path, args)
        return self._keep(image.spec, passphrase, size,
                          16 * MIB if version == 2 else 4 * MIB)


class Bao:
    """The OpenBao of tests/env/openbao."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.ca = os.path.join(self.dir, "ca.pem")
        self.other_ca = os.path.join(self.dir, "other-ca.pem")
        self.token_file = os.path.join(self.dir, "root.token")
        self.audit_log = os.path.join(self.dir, "audit.log")
        self.roles = {}  # accessor: what its login was by

    def _script(self, verb):
        run(os.path.join(ENV, "openbao"), verb, self.dir, timeout=700)

    def up(self):
        self._script("up")

    def down(self):
        self._script("down")

    def seal(self):
        self._script("seal")

    def unseal(self):
        self._script("unseal")

    @property
    def address(self):
        with open(os.path.join(self.dir, "address")) as f:
            return f.read().strip()

    @property
    def token(self):
        with open(self.token_file) as f:
            return f.read()

    def call(self, method, path, body=None, namespace=None, wrap=None,
             token=None):
        """(status, decoded answer); WRAP: the life of a wrapped one; the
        root token's unless TOKEN is given"""
        request = urllib.request.Request(
            self.address + "/v1/" + path, method=method,
            data=None if body is None else json.dumps(body).encode())
        request.add_header("X-Vault-Token", token or self.token)
        if namespace:
            request.add_header("X-Vault-Namespace", namespace)
        if wrap:
            request.add_header("X-Vault-Wrap-TTL", wrap)
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, timeout=20,
                                        context=context) as r:
                text = r.read()
                return r.status, json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(errors="replace")

    def must(self, *args, **kwargs):
        status, answer = self.call(*args, **kwargs)
        assert status in (200, 204), (args[:2], status, answer)
        return answer

    def mount(self, path, version, namespace=None):
        self.must("POST", "sys/mounts/" + path,
                  {"type": "kv", "options": {"version": str(version)}},
                  namespace=namespace)
        # A new v2 mount upgrades itself first and refuses meanwhile.
        probe = path + ("/data/probe" if version == 2 else "/probe")
        body = {"x": "y"}
        await_(lambda: self.call(
            "POST", probe, {"data": body} if version == 2 else body,
            namespace=namespace)[0] in (200, 204), 20, "the mount " + path)

    def put(self, path, fields, mount="secret", namespace=None):
        """Store a record in a KV v2 mount."""
        self.must("POST", "%s/data/%s" % (mount, path), {"data": fields},
                  namespace=namespace)

    def agent(self, kind="agent"):
        """A real agent or proxy that logs in as the AppRole in
        agent.role-id and agent.secret-id: the address of its socket."""
        self._script(kind)
        return "unix://" + os.path.join(self.dir, kind + ".sock")

    def tokens(self, role):
        """{accessor: what is known} of the living tokens of ROLE.  Others,
        of which there are many, are looked up once."""
        status, answer = self.call("LIST", "auth/token/accessors")
        assert status == 200, answer
        found = {}
        for accessor in answer["data"]["keys"]:
            if role not in self.roles.get(accessor, (role,)):
                continue
            status, answer = self.call("POST", "auth/token/lookup-accessor",
                                       {"accessor": accessor})
            if status != 200:
                continue  # it ended in between
            meta = answer["data"]["meta"] or {}
            self.roles[accessor] = (meta.get("role_name"), meta.get("role"),
                                    meta.get("cert_name"))
            if role in self.roles[accessor]:
                found[accessor] = answer["data"]
        return found

    def limited_token(self, *paths):
        """A token that may read PATHS only."""
        name = "limited-%d" % time.monotonic_ns()
        self.must("PUT", "sys/policies/acl/" + name, {"policy": "\n".join(
            'path "%s" { capabilities = ["read"] }' % p for p in paths)})
        return self.must("POST", "auth/token/create", {
            "policies": [name], "no_default_policy": True,
            "ttl": "1h"})["auth"]["client_token"]


class Refused(Exception):
    """The server ended the connection or refused it; says why."""


class Client:
    """An NBD connection on which nothing waits without a limit.

    Buffers are Python's own: libnbd 1.14 never frees an nbd.Buffer.
    """

    def __init__(self, handle):
        self.handle = handle

    @classmethod
    def connect(cls, path, export="", timeout=60, port=None):
        h = nbd.NBD()
        h.set_export_name(export)
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client = cls(h)
        try:
            if port is not None:
                h.aio_connect_tcp("127.0.0.1", str(port))
            else:
                h.aio_connect_unix(path)
            client._poll(h.aio_is_connecting, timeout, "connecting")
        except nbd.Error as e:
            raise Refused(str(e)) from e
        if not h.aio_is_ready():
            raise Refused("the connection was closed")
        return client

    def _poll(self, pending, timeout, what):
        end = time.monotonic() + timeout
        while pending():
            left = end - time.monotonic()
            assert left > 0, "%s: nothing for %g s" % (what, timeout)
            self.handle.poll(int(min(left, 1) * 1000) + 1)

    def wait(self, cookie, timeout=60, what="a request"):
        self._poll(lambda: not self.handle.aio_command_completed(cookie),
                   timeout, what)

    @property
    def size(self):
        return self.handle.get_size()

    def read(self, count, offset, timeout=60):
        """In pieces of 4 MiB, the most that a server must take."""
        data = b""
        while True:
            b = bytearray(min(count - len(data), 4 * MIB))
            self.wait(self.handle.aio_pread(b, offset + len(data)), timeout,
                      "a read")
            data += bytes(b)
            if len(data) >= count:
                return data

    def write(self, data, offset, flags=0, timeout=60):
        begin = 0
        while True:
            self.wait(self.handle.aio_pwrite(data[begin:begin + 4 * MIB],
                                             offset + begin, flags=flags),
                      timeout, "a write")
            begin += 4 * MIB
            if begin >= len(data):
                return

    def flush(self, timeout=60):
        self.wait(self.handle.aio_flush(), timeout, "a flush")

    def zero(self, count, offset, flags=0, timeout=60):
        self.wait(self.handle.aio_zero(count, offset, flags=flags), timeout,
                  "a write-zeroes")

    def trim(self, count, offset, flags=0, timeout=60):
        self.wait(self.handle.aio_trim(count, offset, flags=flags), timeout,
                  "a trim")

    def extents(self, count, offset, timeout=60):
        """[(length, flags)] of base:allocation"""
        found = []

        def collect(metacontext, _offset, entries, _error):
            if metacontext == nbd.CONTEXT_BASE_ALLOCATION:
                found.extend(zip(entries[::2], entries[1::2]))
        self.wait(self.handle.aio_block_status(count, offset, collect),
                  timeout, "a block status")
        return found

    def close(self):
        """Leave politely; a server that is gone is no error."""
        try:
            if self.handle.aio_is_ready():
                self.handle.aio_disconnect()
                self._poll(lambda: not (self.handle.aio_is_closed()
                                        or self.handle.aio_is_dead()),
                           20, "disconnecting")
        except nbd.Error:
            pass
        self.vanish()

    def vanish(self):
        """The descriptor is closed without a word."""
        self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.handle is not None:
            self.close()


class Refusal:
    """How a start that had to fail did fail."""

    def __init__(self, status, lines, seconds):
        self.status = status
        self.lines = lines  # standard error
        self.seconds = seconds

    @property
    def sentence(self):
        errors = [s for s in self.lines if "error:" in s]
        assert len(errors) == 1, "not exactly one error line:\n%s" \
            % "\n".join(self.lines)
        return errors[0]


class Server:
    """nbdkit with the plugin, in the foreground on a Unix socket."""

    mode = ["-f"]

    def __init__(self, servers, arguments, options, env, pass_fds, prefix):
        self.servers = servers
        self.dir = tempfile.mkdtemp(prefix="s", dir=servers.dir)
        os.chmod(self.dir, 0o755)
        if "-u" in options:
            shutil.chown(self.dir, options[options.index("-u") + 1])
        self.socket = os.path.join(self.dir, "sock")
        self.pidfile = os.path.join(self.dir, "pid")
        self.log = os.path.join(self.dir, "stderr")
        self.clients = []
        argv = list(prefix) + ["nbdkit"] + self.mode + ["-P", self.pidfile]
        if not any(o in ("-p", "-s", "--port", "--vsock") for o in options):
            argv += ["-U", self.socket]
        argv += list(options) + [servers.plugin] + list(arguments)
        self.argv = [str(a) for a in argv]
        environment = dict(servers.env)
        environment.update(env)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={k: v for k, v in environment.items() if v is not None},
                pass_fds=pass_fds, cwd="/")
        self.expected_status = 0  # None: whatever it is

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        with open(self.log, "rb") as f:
            return f.read().decode(errors="replace")

    def says(self, text):
        """Wait until it has: what a client sees may come before that."""
        return await_(lambda: text in self.stderr(), 20,
                      "the log says %r" % text)

    def lines(self):
        return [s for s in self.stderr().splitlines() if s.strip()]

    def ready(self):
        """Wait until the server listens."""
        def listens():
            assert self.process.poll() is None, \
                "nbdkit ended with status %d:\n%s" \
                % (self.process.returncode, self.stderr())
            return os.path.exists(self.pidfile) \
                and os.path.getsize(self.pidfile) > 0
        # A start may unlock, which takes what a busy host gives it.
        await_(listens, 60, "nbdkit listens")
        return self

    def connect(self, **kwargs):
        client = Client.connect(self.socket, **kwargs)
        self.clients.append(client)
        return client

    @property
    def uri(self):
        return "nbd+unix:///?socket=" + self.socket

    def wait(self, seconds=STOP_LIMIT):
        """The exit status, or a failure when it takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("nbdkit still runs after %g s:\n%s"
                                 % (seconds, self.stderr())) from None

    def stop(self, seconds=STOP_LIMIT):
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def over(self):
        """Has a test waited for its end?"""
        return self.process.returncode is not None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def finish(self):
        """At a test's end: stop, check, remove."""
        try:
            for c in self.clients:
                if c.handle is not None:
                    c.close()
            if not self.over():
                status = self.stop()
                assert self.expected_status in (status, None), \
                    "exit status %d:\n%s" % (status, self.stderr())
        finally:
            self.kill()
            if os.path.exists(self.dir):
                shutil.rmtree(self.dir)


class Daemon(Server):
    """nbdkit as users start it: it goes into the background.

    PROCESS is what was started, and ends when the server listens; the
    server is no child of ours, so that nobody learns its exit status.
    """

    mode = []
    ended = None  # a pidfd of the server, once it is known

    @property
    def pid(self):
        with open(self.pidfile) as f:
            return int(f.read())

    def ready(self):
        status = super().wait(START_LIMIT + 3)
        assert status == 0, \
            "nbdkit ended with status %d:\n%s" % (status, self.stderr())
        await_(lambda: os.path.exists(self.pidfile)
               and os.path.getsize(self.pidfile) > 0, 5, "the server's pid")
        self.ended = os.pidfd_open(self.pid)
        self.expected_status = None
        return self

    def wait(self, seconds=STOP_LIMIT):
        if self.ended is None:
            return super().wait(seconds)
        assert select.select([self.ended], [], [], seconds)[0], \
            "nbdkit still runs after %g s" % seconds
        return None

    def over(self):
        if self.ended is None:
            return super().over()
        return bool(select.select([self.ended], [], [], 0)[0])

    def stop(self, seconds=STOP_LIMIT):
        if self.ended is None:
            return super().stop(seconds)
        if not self.over():
            signal.pidfd_send_signal(self.ended, signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        super().kill()
        if self.ended is not None:
            if not self.over():
                signal.pidfd_send_signal(self.ended, signal.SIGKILL)
            os.close(self.ended)
            self.ended = None


class Servers:
    """Starts servers, and watches servers that must not start."""

    def __init__(self, plugin, cluster, directory):
        self.plugin = plugin
        self.cluster = cluster
        self.dir = str(directory)
        self.started = []
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C",
                    "HOME": self.dir, MARK: self.dir}

    def start(self, *arguments, options=(), env=None, pass_fds=(),
              conf=True, prefix=(), kind=Server):
        """A server that listens.  ARGUMENTS are the plugin's."""
        server = self.begin(*arguments, options=options, env=env,
                            pass_fds=pass_fds, conf=conf, prefix=prefix,
                            kind=kind)
        return server.ready()

    def begin(self, *arguments, options=(), env=None, pass_fds=(),
              conf=True, prefix=(), kind=Server):
        """A server of which nothing is known yet."""
        if conf:
            arguments += ("conf=" + self.cluster.conf,)
        server = kind(self, arguments, options, env or {}, pass_fds, prefix)
        self.started.append(server)
        return server

    def refused(self, *arguments, limit=START_LIMIT, **kwargs):
        """A start that must fail by itself: a Refusal.

        Checked here: non-zero exit within LIMIT, no signal, exactly one
        error line, no socket, no process left.
        """
        begin = time.monotonic()
        server = self.begin(*arguments, **kwargs)
        try:
            status = server.wait(limit)
        except AssertionError:
            server.kill()
            raise
        seconds = time.monotonic() - begin
        refusal = Refusal(status, server.lines(), seconds)
        assert status > 0, "exit status %d:\n%s" % (status, server.stderr())
        assert refusal.sentence
        assert processes_with(server.socket) == []
        self.forget(server)
        return refusal

    def forget(self, server):
        """End it, if it still runs, before the test does."""
        self.started.remove(server)
        server.finish()

    def finish(self):
        try:
            failed = None
            for server in self.started:
                try:
                    server.finish()
                except Exception as e:  # all of them get their chance
                    failed = failed or e
            if failed:
                raise failed
        finally:
            self.started = []


def ignores(pid, number):
    """Does the process ignore this signal?"""
    with open("/proc/%d/status" % pid) as f:
        mask = re.search(r"^SigIgn:\s*(\w+)", f.read(), re.M).group(1)
    return bool(int(mask, 16) >> (number - 1) & 1)


def processes_with(text):
    """Pids of living processes whose command line or environment holds
    TEXT, but for this one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        what = b""
        for part in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (entry, part), "rb") as f:
                    what += f.read()
            except OSError as e:
                # Gone, or not for us to read (not dumpable, another
                # container's): its command line still tells.
                if e.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
                    raise
        if text.encode() in what:
            found.append(int(entry))
    return found
