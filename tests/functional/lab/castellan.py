# SPDX-License-Identifier: BSD-3-Clause
"""OpenStack's castellan with its Vault manager, which makes the keys."""

import json

from lab.command import bookworm_python, run

# Settings come on standard input, so that the token is in no argv.
PROGRAM = """
import json, sys, tempfile
from castellan import key_manager
from castellan.common.objects import opaque_data, passphrase, symmetric_key
from oslo_config import cfg

want = json.load(sys.stdin)
with tempfile.NamedTemporaryFile("w", suffix=".conf") as f:
    f.write("[key_manager]\\nbackend = vault\\n[vault]\\n")
    for name, value in want["vault"].items():
        f.write("%s = %s\\n" % (name, value))
    f.flush()
    cfg.CONF(["--config-file", f.name], project="x")
km = key_manager.API(cfg.CONF)
context = object()
if want["do"] == "create":
    ident = km.create_key(context, "AES", 256)
elif want["do"] == "delete":
    km.delete(context, want["id"])
    sys.exit()
else:
    kind = {"symmetric": lambda b: symmetric_key.SymmetricKey("AES", 256, b),
            "passphrase": passphrase.Passphrase,
            "opaque": opaque_data.OpaqueData}[want["do"]]
    ident = km.store(context, kind(bytes.fromhex(want["bytes"])))
print(json.dumps({"id": ident,
                  "bytes": km.get(context, ident).get_encoded().hex()}))
"""


def call(bao, do, value=b"", **more):
    """(id of the key, its bytes)"""
    settings = {"vault_url": bao.address, "root_token_id": bao.token,
                "ssl_ca_crt_file": bao.ca}
    settings.update(more.pop("vault", {}))
    out = run(*bookworm_python(), "-c", PROGRAM,
              input=json.dumps({"do": do, "bytes": value.hex(),
                                "vault": settings, **more}).encode())
    said = json.loads(out.stdout or b"{}")
    return said.get("id"), bytes.fromhex(said.get("bytes", ""))
