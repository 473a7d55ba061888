#!/bin/sh
# Write exact versions, without hashes or index addresses, from two fresh environments.
set -eu
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/user"
"$work/user/bin/pip" install --quiet .
{ echo "# Exact versions of what bgdeploy needs; made by: make lock"
  "$work/user/bin/pip" freeze --exclude bgdeploy; } > requirements.lock
"$work/user/bin/pip" install --quiet --upgrade pip  # older ones know no groups
"$work/user/bin/pip" install --quiet --group dev
{ echo "# Exact versions of what its developers need beside; made by: make lock"
  "$work/user/bin/pip" freeze --exclude bgdeploy; } > requirements-dev.lock
