#!/bin/sh
# An authority of one's own for vehicles, gateways and the broker; needs openssl and no network.
#
#     certificates.sh authority DIR              make the authority in DIR (once; keep it offline)
#     certificates.sh server DIR NAME...         for the broker: its names and addresses
#     certificates.sh vehicle DIR ID             for one vehicle; ID is its id in the topics
#     certificates.sh role DIR ROLE              gateway, watcher or fleet
#     certificates.sh revoke DIR NAME            no longer let NAME in; then copy revoked.crl
#
# NAME.crt and NAME.key appear in DIR/issued. Certificates are valid from 2020 on, since a computer
# without a battery for its clock may wake up years ago, and must be let in all the same.
set -eu

FROM=20200101000000Z
AUTHORITY_UNTIL=20591231235959Z
UNTIL=20491231235959Z
ROLES='gateway watcher fleet'

say() { printf 'certificates: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# The topics are cut at these, and a name in a certificate holds 64 characters at most.
check_name() {
    case $1 in
        '' | *[!A-Za-z0-9._:@-]*) die "$1: a name is made of letters, digits and . _ : @ -" ;;
        .*) die "$1: a name begins with no dot" ;;
    esac
    [ "${#1}" -le 64 ] || die "$1: a name in a certificate has 64 characters at most"
}

is_role() {
    for role in $ROLES; do
        [ "$1" != "$role" ] || return 0
    done
    return 1
}

write_settings() {
    cat >"$dir/openssl.cnf" <<SETTINGS
[ca]
default_ca = here
[here]
database = $dir/index.txt
new_certs_dir = $dir/certificates
rand_serial = yes
unique_subject = no
certificate = $dir/ca.crt
private_key = $dir/ca.key
default_md = sha256
default_startdate = $FROM
default_enddate = $UNTIL
default_crl_days = 10000
crl_extensions = crl
policy = any
copy_extensions = none
[any]
commonName = supplied
[req]
distinguished_name = nothing
[nothing]
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[crl]
authorityKeyIdentifier = keyid
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = ${names:-DNS:localhost}
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
SETTINGS
}

quietly() { "$@" 2>"$dir/openssl.log" || {
    cat "$dir/openssl.log" >&2
    die 'openssl refused'
}; }

new_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

request() {
    quietly openssl req -new -config "$dir/openssl.cnf" -key "$1" -subj "/CN=$2" -out "$dir/request.csr"
}

sign() { quietly openssl ca -batch -notext -config "$dir/openssl.cnf" -in "$dir/request.csr" "$@"; }

write_crl() {
    quietly openssl ca -gencrl -config "$dir/openssl.cnf" -crl_lastupdate "$FROM" \
        -crl_nextupdate "$AUTHORITY_UNTIL" -out "$dir/revoked.crl"
}

make_authority() {
    [ ! -e "$dir/ca.key" ] || die "$dir holds an authority already"
    mkdir -p "$dir/issued" "$dir/certificates"
    : >"$dir/index.txt"
    write_settings
    new_key "$dir/ca.key"
    request "$dir/ca.key" 'Motorcade authority'
    sign -selfsign -extensions authority -keyfile "$dir/ca.key" -enddate "$AUTHORITY_UNTIL" \
        -out "$dir/ca.crt"
    write_crl
    say "the authority is in $dir; whoever has ca.key can make any certificate: keep it offline"
}

# issue NAME EXTENSIONS
issue() {
    [ -e "$dir/ca.key" ] || die "no authority in $dir; first: $0 authority $dir"
    [ ! -e "$dir/issued/$1.key" ] || die "$1 has a certificate already; revoke it first"
    write_settings
    new_key "$dir/issued/$1.key"
    request "$dir/issued/$1.key" "$1"
    sign -extensions "$2" -out "$dir/issued/$1.crt"
    rm -f "$dir/request.csr"
    say "$dir/issued/$1.crt and $1.key; with them goes $dir/ca.crt"
}

alternative_names() {
    for name in localhost 127.0.0.1 ::1 "$@"; do
        case $name in
            *[!0-9A-Fa-f.:]* | [A-Fa-f]*) printf 'DNS:%s,' "$name" ;;
            *.*.*.* | *:*) printf 'IP:%s,' "$name" ;;
            *) printf 'DNS:%s,' "$name" ;;
        esac
    done
}

issue_server() {
    for name in "$@"; do
        check_name "$name"
    done
    names=$(alternative_names "$@")
    names=${names%,}
    issue server server
}

revoke() {
    [ -e "$dir/issued/$1.crt" ] || die "no certificate of $1 in $dir/issued"
    write_settings
    quietly openssl ca -config "$dir/openssl.cnf" -revoke "$dir/issued/$1.crt"
    rm -f "$dir/issued/$1.crt" "$dir/issued/$1.key"
    write_crl
    say "$1 is revoked once $dir/revoked.crl is where the broker reads it and the broker reloads"
}

[ $# -ge 2 ] || usage
command -v openssl >/dev/null || die 'openssl is not installed'
umask 077
order=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
case $order in
    authority) make_authority ;;
    server) issue_server "$@" ;;
    vehicle)
        [ $# -eq 1 ] || usage
        check_name "$1"
        ! is_role "$1" || die "$1 is no vehicle's name: it is a role's"
        [ "$1" != server ] || die 'server is the name of the broker'
        issue "$1" client
        ;;
    role)
        [ $# -eq 1 ] || usage
        is_role "$1" || die "$1: a role is one of $ROLES"
        issue "$1" client
        ;;
    revoke)
        [ $# -eq 1 ] || usage
        revoke "$1"
        ;;
    *) usage ;;
esac
