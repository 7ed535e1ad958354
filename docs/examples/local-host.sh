#!/usr/bin/env bash
#
# local-host.sh makes a host of this very machine, for provision.sh: a copy of
# the runner application in a directory of its own, registered for one workflow
# job and started, and drain.sh beside it. The directory goes once the runner has
# ended.
#
#   RUNNER=~/actions-runner ./provision.sh linux ./local-host.sh
#
# RUNNER is where GitHub's runner application was unpacked; HOSTS, where hosts
# are made, is a directory hosts beside it unless set. The name of a host begins
# with HOST_PREFIX (local), which a grant of muster's has to cover.

set -euo pipefail

: "${DEMAND_ID:?is set by provision.sh}" "${MUSTER_TARGET:?is set by provision.sh}" "${MUSTER_LABELS?is set by provision.sh}"
: "${RUNNER:?name the directory of the runner application}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
hosts=${HOSTS-$(dirname "$RUNNER")/hosts}
# The same request is the same host, also when it is tried again.
host=${HOST_PREFIX-local}-${DEMAND_ID%%-*}
dir=$hosts/$host

status=0
answer=$(MUSTER_HOST=$host "$here/token.sh" "$MUSTER_TARGET" 2>&1) || status=$?
case $status:$answer in
0:*) ;;
*"409 conflict"*)
	echo "local-host.sh: $host is not wanted any more" >&2
	exit 0
	;;
*)
	echo "$answer" >&2
	exit "$status"
	;;
esac
{ read -r token && read -r url; } <<<"$answer"

mkdir -p "$dir"
cp -R "$RUNNER/." "$dir"
cd "$dir"
./config.sh --unattended --replace --ephemeral --name "$host" --labels "$MUSTER_LABELS" --url "$url" --token "$token" >config.log
(
	# Muster asks before it takes away a host that is idle.
	MUSTER_HOST=$host "$here/drain.sh" "$dir" 2>drain.log &
	./run.sh >run.log 2>&1 || true
	kill $! 2>/dev/null || true
	cd / && rm -rf "$dir"
) </dev/null >/dev/null 2>&1 &
echo "local-host.sh: $host is under way" >&2
