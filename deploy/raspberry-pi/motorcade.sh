#!/bin/sh
# The command line of the installed Motorcade, with the settings of its gateway.
MOTORCADE_CONFIG=${MOTORCADE_CONFIG:-/etc/motorcade/motorcade.toml}
export MOTORCADE_CONFIG
command=/opt/motorcade/current/bin/motorcade
# Files of the gateway belong to its own user, also those that an administrator's command makes.
if [ "$(id -u)" -eq 0 ] && [ "${1:-}" = gateway ]; then
    exec runuser -u motorcade -- "$command" "$@"
fi
exec "$command" "$@"
