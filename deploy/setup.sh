#!/bin/sh
# Finds a Python that is new enough and hands over to install.py, which sets .venv up. No root, no other tools.
#   deploy/setup.sh [--dev]
#   PYTHON                          which Python to make .venv with
#   GRAFTLINE_ENGINE=cpu|gpu|none   which engine to install, in place of what the hardware suggests
#   GRAFTLINE_EXTRAS="…"            optional parts besides; "training postgres s3 signing plot report search" unless told otherwise
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
seen=
for python in "$root/.venv/bin/python" ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
    command -v "$python" >/dev/null 2>&1 || continue
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        cd "$root" && PYTHONPATH="$root" PYTHONSAFEPATH='' exec "$python" -B -m deploy.install "$@"
    fi
    seen="$seen, $python ($("$python" --version 2>&1 | head -n 1 || :))"
done
echo "set-up: python_too_old: Python 3.11 or newer is needed; found: ${seen:-, none}." | sed 's/found: , /found: /' >&2
echo "Install one (your system's python3.11 package, pyenv or uv will do) and name it: PYTHON=/path/to/python3.11 make up" >&2
exit 1
