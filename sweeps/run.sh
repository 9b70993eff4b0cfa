#!/usr/bin/env bash
# What the scripts beside this one share: source it. `run` is `python -m nsvd_exp`, with $settings in front of what it is
# given. A failed cell makes $status 1 and does not stop what follows. What is above 1 (a wrong command line, an
# interrupt) would happen again, and ends the script.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}
settings=()
status=0

run() {
    echo "== $*" >&2
    local code=0
    "$python" -m nsvd_exp ${settings[@]+"${settings[@]}"} "$@" || code=$?
    if ((code > 1)); then exit "$code"; fi
    if ((code == 1)); then status=1; fi
}
