#!/bin/sh
# Makes the Python environment VENV with what LOCK names, and this checkout in it, editable
# (not with WITHOUT_PROJECT=1: environments of foreign programs).
#
#     make_environment.sh VENV LOCK [PYTHON]
#
# Without PYTHON the first of python3, python3.12, python3.13, python3.11 that is new enough and not
# too new. Debian splits Python: without python3-venv its `venv` cannot bring pip along, so any pip,
# virtualenv or uv that is at hand serves instead.
set -eu

venv=$1
lock=$2
asked=${3:-}

say() { printf 'motorcade: %s\n' "$*" >&2; }

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    for candidate in ${asked:-python3 python3.12 python3.13 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.11, 3.12 or 3.13 is needed; ${asked:-python3} is" \
        "$("${asked:-python3}" --version 2>/dev/null || echo 'not installed')."
    say "Name one that is here: make PYTHON=python3.12 ..., or install one:" \
        "apt install python3 python3-venv (Debian 12, 13, Ubuntu 24.04)."
    return 1
}

has_module() { "$1" -c "import $2" >/dev/null 2>&1; }

pip_takes_python() { "$@" --python "$python" --version >/dev/null 2>&1; }

# Sets `install` to the words that install into $venv.
make_environment() {
    if [ -x "$venv/bin/python" ] && has_module "$venv/bin/python" pip; then
        install="$venv/bin/python -m pip install"
    elif has_module "$python" ensurepip; then
        "$python" -m venv "$venv"
        install="$venv/bin/python -m pip install"
    elif command -v uv >/dev/null 2>&1; then
        [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
        install="uv pip install --python $venv/bin/python"
    elif command -v virtualenv >/dev/null 2>&1; then
        virtualenv --quiet --python "$python" "$venv"
        install="$venv/bin/python -m pip install"
    elif has_module "$python" pip && pip_takes_python "$python" -m pip; then
        "$python" -m venv --without-pip "$venv"
        install="$python -m pip --python $venv/bin/python install"
    elif command -v pip3 >/dev/null 2>&1 && pip_takes_python pip3; then
        "$python" -m venv --without-pip "$venv"
        install="pip3 --python $venv/bin/python install"
    else
        say "$python cannot make an environment: it has neither ensurepip nor pip, and there is no" \
            "uv or virtualenv on the PATH."
        say "Install one of them; on Debian and Ubuntu: apt install python3-venv"
        return 1
    fi
}

python=$(find_python)
if [ -x "$venv/bin/python" ] && ! fits "$venv/bin/python"; then
    say "$venv holds $("$venv/bin/python" --version), but 3.11, 3.12 or 3.13 is needed;" \
        "remove it, or name another place: make VENV=..."
    exit 1
fi
make_environment
say "installing into $venv what $lock names ($("$venv/bin/python" --version))"
# shellcheck disable=SC2086 # $install is several words on purpose
$install --quiet --require-hashes --only-binary :all: -r "$lock"
if [ -z "${WITHOUT_PROJECT:-}" ]; then
    # shellcheck disable=SC2086
    $install --quiet --no-deps --no-build-isolation --editable .
fi
