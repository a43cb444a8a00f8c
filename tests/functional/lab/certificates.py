# SPDX-License-Identifier: BSD-3-Clause
"""Certificates for servers at 127.0.0.1, most of which prove nothing."""

import lab

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
CA_CONF = """
[ca]
default_ca = x
[x]
database = index
new_certs_dir = .
default_md = sha256
policy = p
rand_serial = yes
[p]
commonName = supplied
"""
ALWAYS = ("20200101000000Z", "20490101000000Z")

# What a CA signed: the name, for whom, from when to when, which CA.
SIGNED = (
    ("good", "IP:127.0.0.1", *ALWAYS, "ca"),
    ("named", "DNS:kms.example", *ALWAYS, "ca"),
    ("expired", "IP:127.0.0.1", "20200101000000Z", "20210101000000Z", "ca"),
    ("early", "IP:127.0.0.1", "20480101000000Z", "20490101000000Z", "ca"),
    ("stranger", "IP:127.0.0.1", *ALWAYS, "other-ca"),
)


def make(directory):
    """A CA and what it signed: valid, for another host, expired; and what
    it did not sign.  Returns path(NAME) of what lies in DIRECTORY."""

    def openssl(*argv):
        lab.run("openssl", *argv, cwd=directory)

    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *EC, "-days", "2", "-subj", "/CN=" + ca,
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout", ca + ".key", "-out", ca + ".pem")
    openssl("req", "-x509", *EC, "-days", "2", "-subj", "/CN=self",
            "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", "self.key", "-out", "self.pem")
    (directory / "index").write_text("")
    (directory / "index.attr").write_text("unique_subject = no\n")
    (directory / "ca.conf").write_text(CA_CONF)
    for name, alt, start, end, ca in SIGNED:
        openssl("req", *EC, "-subj", "/CN=" + name, "-keyout", name + ".key",
                "-out", name + ".csr")
        (directory / "ext").write_text(
            "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
            "subjectAltName=%s\n" % alt)
        openssl("ca", "-batch", "-notext", "-config", "ca.conf", "-cert",
                ca + ".pem", "-keyfile", ca + ".key", "-extfile", "ext",
                "-startdate", start, "-enddate", end, "-in", name + ".csr",
                "-out", name + ".pem")
    return lambda name: str(directory / name)
