#!/bin/sh
# The command line of the installed Motorcade, with the settings of its gateway.
MOTORCADE_CONFIG=${MOTORCADE_CONFIG:-/etc/motorcade/motorcade.toml}
export MOTORCADE_CONFIG
exec /opt/motorcade/current/bin/motorcade "$@"
