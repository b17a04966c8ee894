#!/bin/sh
# Renders config.yaml from the container's environment, as the unit does on a server, then becomes what was asked for: `run`, or any other
# command of azaion-daemon.
set -eu
azaion-daemon config render --template "${AZAION_TEMPLATE:-/etc/azaion/config.template.yaml}" --output /run/azaion/config.yaml
exec azaion-daemon "$@"
