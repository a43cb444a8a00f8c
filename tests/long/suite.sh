# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# suite.sh: what the programs here have in common.  They source it, and are
# called with RBDCRYPT_PLUGIN and a directory, into which they write "report";
# the exit status says whether all was well.
set -euo pipefail
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$(cd "${1:?directory}" && pwd)
# Where the plugin was built: config.h is there, and what it is linked from.
build=$(cd "$(dirname "${RBDCRYPT_PLUGIN:?}")/.." && pwd)
export PYTHONDONTWRITEBYTECODE=1
pytest=(/usr/bin/python3 -m pytest -p no:cacheprovider -v)

# End the servers that tests with this lab directory have left.
clear_away () { # LAB
  local server
  for server in cluster openbao barbican kmip; do
    [ ! -d "$1/$server" ] || "$src/tests/env/$server" down "$1/$server" || :
  done
}

# What of the report is shown; a program may have its own.
summary () { tail -n 5 "$dir/report"; }

# The functional tests that pytest finds by ARGUMENT..., with servers of
# their own.
suite () { # ARGUMENT...
  local status=0
  export RBDCRYPT_LAB_DIR=$dir/lab
  trap 'clear_away "$dir/lab"' EXIT
  cd "$src/tests/functional"
  "${pytest[@]}" "$@" > "$dir/report" 2>&1 || status=$?
  summary
  return $status
}

# A package that only a program here needs.
installed () { # PACKAGE...
  dpkg -s "$@" > "$dir/packages" 2>&1 \
    || apt-get install -y --no-install-recommends "$@" >> "$dir/packages" 2>&1
}
