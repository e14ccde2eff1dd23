#!/bin/sh
# Installs the Motorcade gateway from this directory, without a network.
#
#     sudo sh install.sh                install, or upgrade what is there
#     sudo sh install.sh back           go back to the version before
#     sudo sh install.sh uninstall      remove the programs; readings and settings stay
#
# Each version has an environment of its own in /opt/motorcade/releases; /opt/motorcade/current says
# which one runs, and the one before is kept. /etc/motorcade is written once and then yours, and
# /var/lib/motorcade, what is not yet sent, is never touched.
set -eu

OPT=/opt/motorcade
ETC=/etc/motorcade
STATE=/var/lib/motorcade
UNITS=/etc/systemd/system
COMMAND=/usr/local/bin/motorcade
SERVICE=motorcade-gateway.service

say() { printf 'motorcade: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

fact() { sed -n "s/^$1=//p" "$here/platform"; }

systemd_runs() { [ -d /run/systemd/system ]; }

# --- what this machine is

check_machine() {
    machine=$(uname -m)
    wanted=$(fact machine)
    case $machine in
        armv[0-9]*) die "$machine is 32-bit ARM: the libraries that Motorcade needs are not made" \
            "for it. A Raspberry Pi 3, 4, 5 or Zero 2 W runs the 64-bit Raspberry Pi OS." ;;
    esac
    [ "$machine" = "$wanted" ] || die "these are wheels for $wanted, this machine is $machine:" \
        "make wheelhouse ARCH=$machine PYTHON=$(fact python)"
    "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
        die "the kernel is $machine, but the system is 32-bit: install the 64-bit Raspberry Pi OS."
}

find_python() {
    wanted=$(fact python)
    python=$(command -v "python$wanted" || command -v python3) || die 'Python 3 is not installed.'
    is=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$is" = "$wanted" ] || die "these are wheels for Python $wanted (3.11 is Debian 12 Bookworm's," \
        "3.13 Debian 13 Trixie's), here is $is: make wheelhouse ARCH=$(fact machine) PYTHON=$is"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || die 'python3-venv is not installed.'
}

check_root_stays() {
    if grep -q '\boverlayroot=tmpfs' /proc/cmdline 2>/dev/null && [ -z "${OVERLAY_IS_FINE:-}" ]; then
        die 'the root is an overlay in memory: what is installed now is gone with the next start.' \
            'Turn it off first: raspi-config nonint do_overlayfs 1, then reboot.'
    fi
}

check_files() {
    (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) >&2 ||
        die 'files in this directory are damaged or missing; copy it again.'
}

# --- an environment for each version

make_user() {
    getent group motorcade >/dev/null || groupadd --system motorcade
    getent passwd motorcade >/dev/null || useradd --system --gid motorcade --home-dir "$STATE" \
        --no-create-home --shell /usr/sbin/nologin --comment 'Motorcade gateway' motorcade
    install -d -o motorcade -g motorcade -m 0750 "$STATE"
}

make_environment() {
    release=$(fact release)
    place=$OPT/releases/$release
    if [ -e "$place/complete" ]; then
        say "version $release is installed already"
        return
    fi
    say "installing version $release into $place; this takes a minute or two"
    rm -rf "$place"
    mkdir -p "$OPT/releases"
    chmod 0755 "$OPT" "$OPT/releases"
    "$python" -m venv "$place"
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --no-index --find-links "$here/wheels" --no-deps --only-binary :all: --require-hashes \
        --requirement "$here/requirements.txt"
    mkdir -p "$place/share/motorcade"
    cp -R "$here/broker.sh" "$here/certificates.sh" "$here/mosquitto" "$here/systemd" \
        "$here/raspberry-pi.md" "$place/share/motorcade/"
    chmod -R go=u-w "$place"
    "$place/bin/motorcade" --version >/dev/null || die "version $release does not run here"
    # All of it is on the card before anything refers to it.
    sync -f "$place"
    : >"$place/complete"
}

# point NAME RELEASE: a link that is there before and after a power cut, never half.
point() {
    ln -sfn "releases/$2" "$OPT/$1.new"
    mv -T "$OPT/$1.new" "$OPT/$1"
}

pointed() { [ ! -L "$OPT/$1" ] || basename "$(readlink "$OPT/$1")"; }

check_release() {
    [ -e "$ETC/motorcade.toml" ] || return 0
    runuser -u motorcade -- env MOTORCADE_CONFIG="$ETC/motorcade.toml" \
        "$OPT/releases/$1/bin/motorcade" gateway check --local >&2 ||
        die "version $1 would not start with $ETC/motorcade.toml; the one before stays"
}

use_release() {
    before=$(pointed current)
    check_release "$1"
    if [ -n "$before" ] && [ "$before" != "$1" ]; then
        point previous "$before"
    fi
    point current "$1"
    sync -f "$OPT"
}

drop_others() {
    for found in "$OPT"/releases/*; do
        name=${found##*/}
        if [ "$name" != "$(pointed current)" ] && [ "$name" != "$(pointed previous)" ]; then
            rm -rf "$found"
        fi
    done
}

# --- settings and units

place_settings() {
    # The broker's user must get through to its own directory; each below shuts out others.
    install -d -o root -g root -m 0755 "$ETC"
    install -d -o root -g motorcade -m 0750 "$ETC/keys" "$ETC/tls"
    if [ -e "$ETC/motorcade.toml" ]; then
        say "$ETC/motorcade.toml stays as it is"
    else
        install -o root -g motorcade -m 0640 "$here/motorcade.toml" "$ETC/motorcade.toml"
    fi
}

place_units() {
    install -m 0755 "$here/motorcade.sh" "$COMMAND"
    for unit in "$SERVICE" media-motorcade.mount; do
        install -D -m 0644 "$here/systemd/$unit" "$UNITS/$unit"
    done
    place_backoff
    if systemd_runs; then
        systemctl daemon-reload
    fi
    systemctl enable "$SERVICE" media-motorcade.mount 2>/dev/null ||
        say "not enabled, as systemd is not here: systemctl enable $SERVICE"
}

# Growing pauses came with systemd 254; older ones would complain of keys that they do not know.
place_backoff() {
    version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    if [ "${version:-0}" -ge 254 ]; then
        install -D -m 0644 "$here/systemd/$SERVICE.d/backoff.conf" "$UNITS/$SERVICE.d/backoff.conf"
    fi
}

restart_if_running() {
    if systemd_runs && [ "$(systemctl show -P ActiveState "$SERVICE")" != inactive ]; then
        systemctl restart --no-block "$SERVICE"
        say "the gateway starts anew; how it is: motorcade gateway status"
    fi
}

# --- what can be asked for

install_all() {
    find_python
    check_machine
    check_files
    check_root_stays
    make_user
    make_environment
    use_release "$(fact release)"
    place_settings
    place_units
    drop_others
    restart_if_running
    say "installed. New here? Next: $OPT/current/share/motorcade/raspberry-pi.md, 'Certificates'."
}

# What a package does by itself (user, settings, units) is left to it.
install_environment() {
    find_python
    check_machine
    make_environment
    use_release "$(fact release)"
    drop_others
}

go_back() {
    before=$(pointed previous)
    [ -n "$before" ] || die 'there is no version to go back to'
    use_release "$before"
    restart_if_running
    say "version $before runs now; 'back' again returns to the newer one"
}

uninstall() {
    systemctl disable --now "$SERVICE" media-motorcade.mount 2>/dev/null ||
        say 'systemd is not here; nothing was stopped'
    rm -rf "$UNITS/$SERVICE.d"
    rm -f "$UNITS/$SERVICE" "$UNITS/media-motorcade.mount" "$COMMAND"
    rm -rf "$OPT"
    if systemd_runs; then
        systemctl daemon-reload
    fi
    say "removed. $STATE (readings that may not be sent yet), $ETC and the user stay; to delete" \
        "them for good: rm -rf $STATE $ETC && userdel motorcade"
}

here=$(cd "$(dirname "$0")" && pwd)
[ "$#" -le 1 ] || usage
case ${1:-install} in install | environment | back | uninstall) ;; *) usage ;; esac
[ "$(id -u)" -eq 0 ] || die "this needs root: sudo sh $0 ${1:-}"
umask 022
case ${1:-install} in
    install) install_all ;;
    environment) install_environment ;;
    back) go_back ;;
    uninstall) uninstall ;;
esac
