# SPDX-License-Identifier: BSD-3-Clause
"""What an image records about its key."""

import json

from lab.settings import PASSPHRASE

METADATA = "rbdcrypt/v1"


def tenants(bao):
    """Profiles: tenant-a for images in rbd, tenant-b for those of another
    pool, and one that no image may name."""
    for name in ("tenant-a", "tenant-b"):
        bao.put(name + "/vol", {"value": PASSPHRASE.decode()})

    def profile(prefix, **members):
        return bao.profile(mount="secret", prefix=prefix, layout="field",
                           field="value", timeout=3, **members)
    return {"tenant-a": profile("tenant-a/", images=["rbd/*"]),
            "tenant-b": profile("tenant-b/", images=["other/*"]),
            "private": profile("tenant-a/")}


def image_id(image):
    return image.cluster.ident(image)


def record(image, **members):
    r = dict({"version": 1, "profile": "tenant-a", "reference": "vol",
              "image_id": image_id(image)}, **members)
    return {k: v for k, v in r.items() if v is not None}


def set_metadata(image, text):
    image.cluster.rbd("image-meta", "set", image.spec, METADATA,
                      text if isinstance(text, str) else json.dumps(text))


def serves(servers, image, *arguments):
    with servers.start(image, *arguments).connect() as c:
        assert c.size == image.size
        c.write(b"x" * 512, 0)
        assert c.read(512, 0) == b"x" * 512
