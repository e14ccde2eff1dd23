#!/bin/sh
# Sets Mosquitto up for a Motorcade gateway: TLS, a certificate for everyone, topics by name.
#
#     sh broker.sh AUTHORITY FLEET
#
# AUTHORITY is the directory of `certificates.sh`, with the certificates of `server` and `gateway`
# made. Its key is not needed here and not copied. Run again after a revocation, or for another
# fleet; the password file and what lies in conf.d stay as they are.
set -eu

ETC=/etc/motorcade
BROKER=$ETC/mosquitto

say() { printf 'broker: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] || {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
authority=$1
fleet=$2
[ "$(id -u)" -eq 0 ] || die 'this needs root: sudo sh broker.sh ...'
case $fleet in
    '' | *[!A-Za-z0-9._-]*) die "$fleet: a fleet's name is made of letters, digits and . _ -" ;;
esac
getent passwd mosquitto >/dev/null || die 'Mosquitto is not installed: apt install mosquitto'
getent group motorcade >/dev/null || die 'Motorcade is not installed: sh install.sh'
for file in ca.crt revoked.crl issued/server.crt issued/server.key issued/gateway.crt \
    issued/gateway.key; do
    [ -f "$authority/$file" ] || die "$authority/$file is not there; see certificates.sh"
done

# place GROUP MODE FROM TO: whole or not at all, also when the power goes.
place() {
    install -o root -g "$1" -m "$2" "$3" "$4.new"
    sync "$4.new"
    mv "$4.new" "$4"
}

install -d -o root -g root -m 0755 "$ETC"
install -d -o root -g mosquitto -m 0750 "$BROKER" "$BROKER/conf.d"
install -d -o root -g motorcade -m 0750 "$ETC/tls"
place mosquitto 0640 "$here/mosquitto/mosquitto.conf" "$BROKER/mosquitto.conf"
place mosquitto 0640 "$here/mosquitto/passwords.conf" "$BROKER/passwords.conf"
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT
sed "s/FLEET/$fleet/g" "$here/mosquitto/acl" >"$filled"
place mosquitto 0640 "$filled" "$BROKER/acl"
for file in ca.crt revoked.crl issued/server.crt issued/server.key; do
    place mosquitto 0640 "$authority/$file" "$BROKER/${file##*/}"
done
for file in ca.crt issued/gateway.crt issued/gateway.key; do
    place motorcade 0640 "$authority/$file" "$ETC/tls/${file##*/}"
done
if [ -f "$ETC/motorcade.toml" ]; then
    sed "s/^fleet = .*/fleet = \"$fleet\"/" "$ETC/motorcade.toml" >"$filled"
    place motorcade 0640 "$filled" "$ETC/motorcade.toml"
fi
drop_in=/etc/systemd/system/mosquitto.service.d
install -d -m 0755 "$drop_in"
place root 0644 "$here/systemd/mosquitto.service.d/motorcade.conf" "$drop_in/motorcade.conf"

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable mosquitto.service
    systemctl restart mosquitto.service
    systemctl restart --no-block motorcade-gateway.service
    say "the broker listens on 8883 and takes certificates of $authority; the gateway starts anew"
else
    say 'everything is placed; systemd does not run here, so nothing was started'
fi
