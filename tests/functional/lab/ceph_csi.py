# SPDX-License-Identifier: BSD-3-Clause
"""What ceph-csi keeps in an image's metadata, made by its own code: see
tests/unit/test-ceph-csi.c."""

ID = "0001-0009-rook-ceph-0000000000000002-" \
     "1b00f5f8-b1c1-11e9-8421-9243c1f659f0"
WRAPPED = {"dek": "b8numd0jUJlalPCvQwWJ7GFGzJ/VxYl/2s/"
                  "EkIwA8h81BUJQrU2+NeRjMes=",
           "nonce": "b+CuybRNwApeAnp5"}
DEK = "rbd.csi.ceph.com/dek"
TEXT = b"Zmn3VY5PHYhWdzlZ2gJ4Nfr8UM8="
