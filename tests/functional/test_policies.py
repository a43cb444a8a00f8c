# SPDX-License-Identifier: BSD-3-Clause
"""contrib/policies, applied as its manuals say: a server works with them,
and the neighbour's key is denied."""

import base64
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request

import pytest

import lab
from lab import fake_kubernetes
from lab.bound import opens, refuses
from lab.documents import examples, read
from lab.records import serves
from lab.servers import served

POLICIES = os.path.join(lab.TOP, "contrib", "policies")
TEXT = lab.PASSPHRASE.decode()
TENANTS = ("acme", "globex")
LOGINS = ("approle", "jwt", "kubernetes", "cert", "token")


def examples_of(room):
    return examples(read("contrib", "policies", room, "README.md"))


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tenants:
    """An OpenBao of its own where contrib/policies/openbao was applied."""

    def __init__(self, bao, directory):
        self.bao = bao
        self.dir = str(directory)
        self.examples = examples_of("openbao")
        self.jwt_key = os.path.join(self.dir, "jwt.key")

    def sh(self, *names, tenant=""):
        """Run examples, one after the other, in one shell."""
        program = lab.run(os.path.join(lab.ENV, "openbao"), "fetch",
                          timeout=700).stdout.decode().strip()
        script = "bao () { timeout 30 %s \"$@\"; }\n" % program + "".join(
            self.examples[name] for name in names)
        env = dict(os.environ, TENANT=tenant, **self.bao.environment)
        lab.run("bash", "-e", "-u", "-o", "pipefail", "-c", script, env=env,
                cwd=self.dir)

    def set_up(self):
        must = self.bao.must
        for f in os.listdir(os.path.join(POLICIES, "openbao")):
            os.symlink(os.path.join(POLICIES, "openbao", f),
                       os.path.join(self.dir, f))
        os.symlink(self.bao.ca, os.path.join(self.dir, "client-ca.pem"))
        must("POST", "sys/mounts/transit", {"type": "transit"})
        for method in ("approle", "jwt", "kubernetes", "cert"):
            must("POST", "sys/auth/" + method, {"type": method})
        lab.run("openssl", "genrsa", "-out", self.jwt_key, "2048")
        must("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [
            lab.run("openssl", "rsa", "-in", self.jwt_key,
                    "-pubout").stdout.decode()]})
        self.sh("policies")
        for tenant in TENANTS:
            self.sh("tenant", *LOGINS, tenant=tenant)

    def _login(self, path, body, certificate=None):
        context = ssl.create_default_context(cafile=self.bao.ca)
        if certificate:
            context.load_cert_chain(*certificate)
        request = urllib.request.Request(
            self.bao.address + "/v1/auth/%s/login" % path, method="POST",
            data=json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=20,
                                        context=context) as r:
                return json.loads(r.read())["auth"]["client_token"]
        except urllib.error.HTTPError as e:
            raise AssertionError(
                "%s: %d %s" % (path, e.code, e.read().decode())) from None

    def _jwt(self, tenant, **claims):
        now = int(time.time())
        claims = {"sub": "rbdcrypt:" + tenant, "aud": ["openbao"],
                  "iat": now - 5, "exp": now + 600, **claims}
        text = b64url(b'{"alg":"RS256","typ":"JWT"}') + "." + b64url(
            json.dumps(claims).encode())
        return text + "." + b64url(lab.run(
            "openssl", "dgst", "-sha256", "-sign", self.jwt_key,
            input=text.encode()).stdout)

    def service_account(self, namespace, name="rbdcrypt"):
        """What Kubernetes gives to this one's processes."""
        return self._jwt("", **{
            "iss": "https://kubernetes.default.svc",
            "sub": "system:serviceaccount:%s:%s" % (namespace, name),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {
                "name": name, "uid": "1"}}})

    def _certificate(self, tenant):
        def path(kind):
            return os.path.join(self.dir, "%s.%s" % (tenant, kind))
        lab.run("openssl", "req", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                "/CN=rbdcrypt-" + tenant, "-keyout", path("key"), "-out",
                path("csr"))
        with open(path("ext"), "w") as f:
            f.write("extendedKeyUsage=clientAuth\n")
        lab.run("openssl", "x509", "-req", "-in", path("csr"), "-CA",
                self.bao.ca, "-CAkey", self.bao.file("ca.key"),
                "-CAcreateserial", "-days", "2", "-extfile", path("ext"),
                "-out", path("pem"))
        return path("pem"), path("key")

    def login_role(self, name):
        role = "auth/approle/role/" + name
        return self._login("approle", {
            "role_id": self.bao.must(
                "GET", role + "/role-id")["data"]["role_id"],
            "secret_id": self.bao.must(
                "POST", role + "/secret-id", {})["data"]["secret_id"]})

    def login(self, method, tenant):
        """A token of TENANT's, by METHOD."""
        role = "rbdcrypt-" + tenant
        if method == "approle":
            return self.login_role(role)
        if method == "jwt":
            return self._login("jwt", {"role": role,
                                       "jwt": self._jwt(tenant)})
        if method == "cert":
            return self._login("cert", {"name": role},
                               self._certificate(tenant))
        assert method == "token"
        with open(os.path.join(self.dir, tenant + ".token")) as f:
            return f.read().strip()

    def limited(self, tenant, *policies):
        """A token of TENANT's with these policies only."""
        name = "only-" + "-".join(policies)
        self.bao.must("POST", "auth/token/roles/" + name, {
            "allowed_policies": ["rbdcrypt-" + p for p in policies],
            "allowed_entity_aliases": ["rbdcrypt-" + tenant for tenant
                                       in TENANTS],
            "orphan": True, "token_no_default_policy": True})
        return self.bao.must("POST", "auth/token/create/" + name, {
            "entity_alias": "rbdcrypt-" + tenant, "no_default_policy": True,
            "policies": ["rbdcrypt-" + p for p in policies],
        })["auth"]["client_token"]

    def wrapped(self, tenant, image_id):
        """(ciphertext, the passphrase's bytes) for an image."""
        context = base64.b64encode(b"rbdcrypt:" + image_id.encode()).decode()
        data = self.bao.must("POST", "transit/datakey/plaintext/" + tenant, {
            "bits": 256, "context": context})["data"]
        return data["ciphertext"], base64.b64decode(data["plaintext"])


@pytest.fixture(scope="module")
def tenants(lab_dir, tmp_path_factory):
    b = lab.Bao(os.path.join(lab_dir, "openbao-policies"))
    b.up()
    b.mount("secret", 2)
    b.mount("kv1", 1)
    for tenant in TENANTS:
        b.mount("castellan/" + tenant, 2)
    t = Tenants(b, tmp_path_factory.mktemp("policies"))
    t.set_up()
    yield t
    b.down()


@pytest.fixture
def profile(tenants, files, profiles_file):
    """profile(TOKEN, **members) -> profiles=; or with auth="""
    def make(token, **members):
        auth = {"method": "token_file", "path": files("token", token)}
        return profiles_file(t=tenants.bao.profile(
            **{"auth": auth, **members}))
    return make


def may(tenants, token, method, path, body=None):
    """What this token is told: a status."""
    return tenants.bao.call(method, path, body, token=token)[0]


@pytest.mark.parametrize("login", ["approle", "jwt", "cert", "token"])
def test_each_login_reads_its_tenants_keys_and_no_other(
        servers, images, tenants, profile, login):
    for tenant in TENANTS:
        tenants.bao.put("tenants/%s/vol" % tenant, {"key": TEXT})
    token = tenants.login(login, "acme")
    field = {"layout": "field", "field": "key"}
    image = images.luks()
    served(servers, image, "key=t:vol",
           profile(token, prefix="tenants/acme/", **field))
    refusal = servers.refused(image, "key=t:vol", profile(
        token, prefix="tenants/globex/", **field))
    assert "the token is valid" in refusal.sentence
    assert may(tenants, token, "GET", "secret/data/tenants/globex/vol") == 403


RECORDS = [
    ("kv2", {"layout": "field", "field": "key", "prefix": "tenants/%s/"},
     "secret/data/tenants/%s/", {"key": TEXT}),
    ("kv1", {"layout": "field", "field": "key", "prefix": "tenants/%s/",
             "engine": "kv1", "mount": "kv1"}, "kv1/tenants/%s/",
     {"key": TEXT}),
    ("castellan", {"layout": "castellan", "mount": "castellan/%s"},
     "castellan/%s/data/",
     {"type": "passphrase", "value": TEXT.encode().hex()}),
    ("ceph-csi", {"layout": "ceph-csi", "prefix": "ceph-csi/%s/"},
     "secret/data/ceph-csi/%s/", {"data": {"passphrase": TEXT}}),
]


@pytest.mark.parametrize("policy,members,path,record", RECORDS,
                         ids=[r[0] for r in RECORDS])
def test_policy_lets_read_one_tenants_keys_and_nothing_else(
        servers, images, tenants, profile, policy, members, path, record):
    body = record if policy == "kv1" else {"data": record}
    for tenant in TENANTS:
        tenants.bao.must("POST", path % tenant + "vol-9", body)
    token = tenants.limited("acme", "login", policy)
    members = {k: v.replace("%s", "acme") for k, v in members.items()}
    served(servers, images.luks(), "key=t:vol-9", profile(token, **members))
    theirs, ours = path % "globex" + "vol-9", path % "acme" + "vol-9"
    assert may(tenants, token, "GET", ours) == 200
    assert may(tenants, token, "GET", theirs) == 403
    for method, where in (("POST", ours), ("DELETE", ours),
                          ("LIST", path % "acme"),
                          ("LIST", path.split("%")[0]),
                          ("GET", theirs.replace("/data/", "/metadata/")),
                          ("GET", "sys/mounts"),
                          ("POST", "auth/token/create")):
        assert may(tenants, token, method, where,
                   body if method == "POST" else None) == 403, (method, where)


def test_ids_of_castellan_and_ceph_csi_have_no_parts(tenants):
    """What lies deeper is another tenant's, or not a key."""
    token = tenants.limited("acme", "login", "castellan", "ceph-csi")
    for mount, path in (("castellan/acme", "deep/er"),
                        ("secret", "ceph-csi/acme/deep/er")):
        tenants.bao.put(path, {"key": TEXT}, mount=mount)
        assert may(tenants, token, "GET",
                   "%s/data/%s" % (mount, path)) == 403


def test_policies_of_transit(servers, images, tenants, profile):
    wrapped = {}

    def passphrase(ident):
        wrapped["vault"], opened = tenants.wrapped("acme", ident)
        return opened
    image = images.encrypted_by_id(passphrase)
    ciphertext = wrapped["vault"]
    token = tenants.limited("acme", "login", "transit")
    served(servers, image, "key=t:" + ciphertext,
           profile(token, engine="transit", key="acme"))
    refusal = servers.refused(image, "key=t:" + ciphertext, profile(
        token, engine="transit", key="globex"))
    assert "the token is valid" in refusal.sentence
    body = {"ciphertext": ciphertext, "plaintext": "AAAA",
            "context": base64.b64encode(b"rbdcrypt:" +
                                        image.id.encode()).decode()}
    assert may(tenants, token, "POST", "transit/decrypt/acme", body) == 200
    for what in ("encrypt", "datakey/wrapped", "datakey/plaintext",
                 "rewrap"):
        assert may(tenants, token, "POST", "transit/%s/acme" % what,
                   body) == 403, what
    assert may(tenants, token, "GET", "transit/keys/acme") == 403

    admin = tenants.limited("acme", "login", "transit-admin")
    for what, status in (("rewrap", 200), ("datakey/wrapped", 200),
                         ("datakey/plaintext", 403), ("decrypt", 403),
                         ("encrypt", 403)):
        assert may(tenants, admin, "POST", "transit/%s/acme" % what,
                   body) == status, what
    for what in ("rewrap", "datakey/wrapped"):
        assert may(tenants, admin, "POST", "transit/%s/globex" % what,
                   body) == 403, what


def test_mounts_policy_is_what_a_reference_without_profile_needs(
        servers, images, tenants):
    tenants.bao.put("tenants/acme/vol", {"key": TEXT})
    env = {**tenants.bao.environment,
           "BAO_TOKEN": tenants.limited("acme", "login", "kv2", "mounts")}
    image = images.luks()
    with servers.start(image, "key=bao:secret/tenants/acme/vol#key",
                       env=env).connect() as c:
        assert c.size == image.size
    refusal = servers.refused(image, "key=bao:secret/tenants/globex/vol#key",
                              env=env)
    assert "the token is valid" in refusal.sentence


def test_login_policy_is_what_a_token_needs(tenants):
    token = tenants.limited("acme", "login")
    assert may(tenants, token, "GET", "auth/token/lookup-self") == 200
    assert may(tenants, token, "POST", "auth/token/renew-self", {}) == 200
    assert may(tenants, token, "POST", "auth/token/revoke-self") == 204
    assert may(tenants, token, "GET", "auth/token/lookup-self") == 403


def test_a_login_without_an_alias_gets_nothing(servers, encrypted, tenants,
                                               profile):
    """No tenant in the entity's metadata: the path cannot match."""
    tenants.bao.must("POST", "auth/approle/role/nobody", {
        "token_policies": ["rbdcrypt-login", "rbdcrypt-kv2"],
        "token_no_default_policy": True})
    token = tenants.login_role("nobody")
    tenants.bao.put("tenants/acme/vol", {"key": TEXT})
    tenants.bao.put("tenants/vol", {"key": TEXT})
    for prefix in ("tenants/acme/", "tenants/"):
        refusal = servers.refused(encrypted, "key=t:vol", profile(
            token, layout="field", field="key", prefix=prefix))
        assert "the token is valid" in refusal.sentence


def test_kubernetes_login_reads_its_tenants_keys_and_no_other(
        servers, images, tenants, profile, files):
    """As a server in a pod logs in: only Kubernetes' review of the service
    account's token is not real."""
    image = images.luks()
    for tenant in TENANTS:
        tenants.bao.put("tenants/%s/vol" % tenant, {"key": TEXT})

    def arguments(namespace, name="rbdcrypt", tenant="acme"):
        return ("key=t:vol", profile(
            "", layout="field", field="key", prefix="tenants/%s/" % tenant,
            auth={"method": "kubernetes", "role": "rbdcrypt-acme",
                  "jwt_file": files("jwt", tenants.service_account(
                      namespace, name))}))
    with fake_kubernetes.Api() as api:
        with open(tenants.bao.ca) as f:
            tenants.bao.must("POST", "auth/kubernetes/config", {
                "kubernetes_host": api.address, "disable_local_ca_jwt": True,
                "kubernetes_ca_cert": f.read()})
        served(servers, image, *arguments("acme"))
        assert api.reviews == 1
        refusal = servers.refused(image, *arguments("acme", tenant="globex"))
        assert "denies" in refusal.sentence and "globex" in refusal.sentence
        # Neither another tenant's account nor another one of this tenant's.
        for other in (("globex",), ("acme", "default")):
            refusal = servers.refused(image, *arguments(*other))
            assert "logging in" in refusal.sentence
            assert "not authorized" in refusal.sentence


# ---------------------------------------------------------------------
# cephx

@pytest.fixture
def ceph_user(cluster, files):
    """ceph_user(EXAMPLE, **environment) -> the plugin's arguments."""
    made = []

    def make(example, **environment):
        script = examples_of("cephx")[example]
        out = lab.run("bash", "-e", "-u", "-o", "pipefail", "-c", script,
                      env=dict(cluster.env, POOL="rbd", **environment))
        name = re.search(r"^\[client\.(.*)\]$", out.stdout.decode(),
                         re.M).group(1)
        made.append(name)
        return name, ["user=" + name, "ceph.keyring=" + files(
            name + ".keyring", out.stdout)]
    yield make
    for name in made:
        cluster.ceph("auth", "rm", "client." + name)


def as_user(cluster, user, *argv, **kwargs):
    name, (_, keyring) = user
    return cluster.call("rbd", "--id", name, "--keyring",
                        keyring.split("=", 1)[1], *argv, check=False,
                        **kwargs).returncode


def test_read_write_user_serves(servers, images, key, ceph_user):
    image = images.luks()
    with servers.start(image, key,
                       *ceph_user("read-write")[1]).connect() as c:
        c.write(b"x" * 512, 0)
        c.flush()
        assert c.read(512, 0) == b"x" * 512


def test_read_only_user_only_reads(servers, images, cluster, key, ceph_user):
    image = images.luks()
    user = ceph_user("read-only")
    with servers.start(image, key, *user[1]).connect() as c:
        assert c.handle.is_read_only()
        assert len(c.read(512, 0)) == 512
    assert as_user(cluster, user, "image-meta", "set", image.spec, "a",
                   "b") != 0


def test_admin_makes_describes_and_removes(images, cluster, ceph_user):
    user = ceph_user("admin")
    spec = images.name()
    for argv in (("create", "-s", "8M", spec),
                 ("image-meta", "set", spec, "rbdcrypt/x", "y"),
                 ("trash", "mv", spec)):
        assert as_user(cluster, user, *argv) == 0, argv


@pytest.fixture
def bind_as(bind, cluster, files):
    """bind_as(USER, *ARGUMENTS): rbdcrypt bind as that user."""
    def run(user, *arguments, **kwargs):
        name, (_, keyring) = user
        with open(cluster.conf) as f:
            conf = re.sub(r"^keyring = .*$", keyring.split(".", 1)[1].replace(
                "=", " = "), f.read(), flags=re.M)
        return bind("--conf", files("ceph-%s.conf" % name, conf),
                    "--user", name, *arguments, **kwargs)
    return run


def test_admin_binds_images_that_a_server_then_opens(
        servers, images, ceph_user, bind_as, profiles, tmp_path):
    admin, server = ceph_user("admin"), ceph_user("read-write")
    for version in (2, 1):  # in the header; in the image's metadata
        image = images.luks(version)
        bind_as(admin, image, "tenant-a:vol")
        serves(servers, image, profiles, *server[1])
        if version == 2:
            assert len(opens(image, tmp_path)) == 1


def test_read_only_user_binds_nothing(images, ceph_user, bind_as):
    user = ceph_user("read-only")
    for version in (2, 1):
        image = images.luks(version)
        before = image.raw()
        refuses(bind_as(user, image, "tenant-a:vol", check=False),
                image.spec, "may not write")
        assert image.raw() == before


def test_tenants_user_reaches_no_other_tenant(servers, images, cluster, key,
                                              ceph_user):
    users = {t: ceph_user("tenant", TENANT=t) for t in TENANTS}
    image = {t: images.luks(namespace=t) for t in TENANTS}
    with servers.start(image["acme"], key,
                       *users["acme"][1]).connect() as c:
        c.write(b"x" * 512, 0)
        c.flush()
    servers.refused(image["globex"], key, *users["acme"][1])
    assert as_user(cluster, users["acme"], "ls", "rbd/globex") != 0


def test_one_images_user_reaches_no_other_image(servers, images, cluster, key,
                                                ceph_user):
    ours, theirs = images.luks(), images.luks()
    user = ceph_user("image", IMAGE=ours.spec.split("/")[-1])
    with servers.start(ours, key, *user[1]).connect() as c:
        c.write(b"x" * 512, 0)
        c.zero(4096, 8 * lab.MIB)
        c.flush()
        assert c.read(512, 0) == b"x" * 512
    servers.refused(theirs, key, *user[1])
    assert as_user(cluster, user, "ls", "rbd") != 0
    assert as_user(cluster, user, "rm", "--no-progress", theirs.spec) != 0
