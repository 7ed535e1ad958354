#!/usr/bin/env bash
#
# provision.sh makes hosts for a pool: it takes the requests that muster
# publishes for the pool, one by one, and runs a command for each. Any number of
# them may run, anywhere: each request goes to one. Nothing but bash (4.3 or
# later) is needed; it speaks the text protocol of NATS over /dev/tcp.
#
#   ./provision.sh linux ./local-host.sh
#
# See usage below for what the command is given and what its exit status means.
# provision.sh ends when the connection is lost: have it started again.

usage() {
	cat <<'END'
usage: provision.sh POOL COMMAND [ARGUMENT...]

Runs COMMAND for each host that muster wants for POOL, with

  DEMAND_ID        the id of the request: what the host names when it asks for a token
  MUSTER_POOL      POOL
  MUSTER_TARGET    the target
  MUSTER_LABELS    labels that its runner is to have, with commas between
  MUSTER_DEADLINE  by when its runner has to be online

COMMAND returns, within a minute, once the host is under way: 0 says that it is,
or that it is not wanted any more. Otherwise the request is given to somebody
again after 10 s, under the same id; so it is where provision.sh dies meanwhile.

Environment:
  MUSTER_NATS_URL  nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]; default nats://127.0.0.1:4222
  NATS_USER, NATS_PASSWORD, NATS_TOKEN
                   credentials, where the address has none
  PROVISION_COUNT  so many requests, then end; default: without end

Exit status: 0 done, 2 bad usage, 3 refused, 4 NATS not reachable or lost.
END
}

set -u
# Bytes, not characters: NATS counts bytes.
LC_ALL=C

die() {
	local status=$1
	shift
	printf 'provision.sh: %s\n' "$*" >&2
	exit "$status"
}

say() { printf 'provision.sh: %s\n' "$*" >&2; }

# quoted makes a JSON string.
quoted() {
	local s=$1
	case $s in *[[:cntrl:]]*) die 2 "a setting has a control character in it" ;; esac
	s=${s//\\/\\\\}
	s=${s//\"/\\\"}
	printf '"%s"' "$s"
}

# field takes a string out of a request, which is one line of JSON without
# escapes.
field() {
	local re="\"$1\":\"([^\"]*)\""
	[[ $2 =~ $re ]] && printf '%s' "${BASH_REMATCH[1]}"
}

# send need not tell of a connection that is gone: the next line does.
send() {
	printf '%s\r\n' "$@" >&3
} 2>/dev/null

# publish sends a message, and says where an answer may go.
publish() {
	send "PUB $1 ${3-}${3:+ }${#2}" "$2"
}

# receive waits for a message: $reply is where it is acknowledged, $headers
# what stands above it, and $body the message.
receive() {
	local words size head=0
	while :; do
		IFS= read -r -t 90 -u 3 got || die 4 "$where is silent, or closed the connection"
		got=${got%$'\r'}
		case $got in
		MSG\ * | HMSG\ *) break ;;
		PING) send PONG ;;
		-ERR*Authorization* | -ERR*Authentication*) die 3 "$where does not accept the login: set NATS_USER and NATS_PASSWORD, or NATS_TOKEN" ;;
		-ERR*ermissions*) die 3 "$where does not let this login provision: ${got#-ERR }" ;;
		-ERR*) die 4 "$where says ${got#-ERR }" ;;
		esac
	done
	read -r -a words <<<"$got"
	size=${words[-1]} reply=
	if [[ $got == HMSG* ]]; then
		head=${words[-2]}
		((${#words[@]} < 6)) || reply=${words[3]}
	else
		((${#words[@]} < 5)) || reply=${words[3]}
	fi
	headers=
	((head == 0)) || IFS= read -r -N "$head" -t 90 -u 3 headers || die 4 "$where broke off in a message"
	body=
	((size == head)) || IFS= read -r -N $((size - head)) -t 90 -u 3 body || die 4 "$where broke off in a message"
	IFS= read -r -t 90 -u 3 got || die 4 "$where broke off in a message"
}

case ${1-} in -h | --help)
	usage
	exit 0
	;;
esac
if (($# < 2)); then
	usage >&2
	exit 2
fi
pool=$1
shift
[[ $pool =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] || die 2 "pool \"$pool\" is not a name: want lower-case letters, digits and hyphens"
count=${PROVISION_COUNT-0}
[[ $count =~ ^[0-9]{1,9}$ ]] || die 2 "PROVISION_COUNT \"$count\": want a number"
url=${MUSTER_NATS_URL-nats://127.0.0.1:4222}
pattern='^(nats://)?(([^@/]*)@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:([0-9]{1,5}))?/?$'
# Not repeated in the message: it may hold a password.
[[ $url =~ $pattern ]] || die 2 "MUSTER_NATS_URL is not nats://HOST:PORT"
login=${BASH_REMATCH[3]}
server=${BASH_REMATCH[4]//[\[\]]/}
port=${BASH_REMATCH[6]:-4222}
where="nats://$server:$port"
user=${NATS_USER-} password=${NATS_PASSWORD-} token=${NATS_TOKEN-}
if [[ $login == *:* ]]; then
	user=${login%%:*} password=${login#*:}
elif [[ -n $login ]]; then
	token=$login
fi
[[ $login != *%* ]] || die 2 "MUSTER_NATS_URL has an escape (%) in its login: use NATS_USER and NATS_PASSWORD or NATS_TOKEN"
connect='{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"provision.sh","lang":"bash","version":"1","protocol":1'
if [[ -n $user ]]; then
	connect+=",\"user\":$(quoted "$user"),\"pass\":$(quoted "$password")" || exit
fi
if [[ -n $token ]]; then
	connect+=",\"auth_token\":$(quoted "$token")" || exit
fi
connect+="}"

{ exec 3<>"/dev/tcp/$server/$port"; } 2>/dev/null || die 4 "cannot reach $where"
trap '' PIPE
IFS= read -r -t 10 -u 3 got || die 4 "$where is silent, or closed the connection"
[[ $got == INFO* ]] || die 4 "$where is not a NATS server"
inbox=_INBOX_provision.$pool.sh-$$-$RANDOM$RANDOM$RANDOM
send "CONNECT $connect" "SUB $inbox 1"

# One consumer for the pool, whoever is first to make it. A request that nobody
# acknowledges within two minutes is given to somebody again.
api="\$JS.API.CONSUMER"
publish "$api.DURABLE.CREATE.MUSTER_PROVISION.$pool" "{\"stream_name\":\"MUSTER_PROVISION\",\"config\":{\"durable_name\":\"$pool\",\"filter_subject\":\"muster.v1.provision.$pool\",\"ack_policy\":\"explicit\",\"deliver_policy\":\"all\",\"replay_policy\":\"instant\",\"ack_wait\":120000000000}}" "$inbox"
receive
[[ $headers != 'NATS/1.0 503'* ]] || die 4 "JetStream does not answer at $where; has muster serve run there?"
[[ $body != *'"error":'* ]] || die 3 "$where makes no consumer: $(field description "$body")"

for ((done = 0; count == 0 || done < count; )); do
	publish "$api.MSG.NEXT.MUSTER_PROVISION.$pool" '{"batch":1,"expires":30000000000}' "$inbox"
	receive
	if [[ $headers == 'NATS/1.0 4'* && -z $body ]]; then
		continue # nothing is wanted
	fi
	[[ -n $reply ]] || die 4 "$where says ${headers%%$'\r'*}"
	done=$((done + 1))
	DEMAND_ID=$(field request_id "$body")
	MUSTER_TARGET=$(field target "$body")
	MUSTER_DEADLINE=$(field deadline "$body")
	MUSTER_LABELS=
	[[ $body =~ \"labels\":\[([^]]*)\] ]] && MUSTER_LABELS=${BASH_REMATCH[1]//\"/}
	export DEMAND_ID MUSTER_TARGET MUSTER_DEADLINE MUSTER_LABELS MUSTER_POOL=$pool
	if [[ ${MUSTER_DEADLINE:0:19} < $(date -u +%FT%T) ]]; then
		say "request $DEMAND_ID is past its deadline, $MUSTER_DEADLINE: left"
		publish "$reply" +ACK
	elif "$@" 3>&-; then
		publish "$reply" +ACK
	else
		say "request $DEMAND_ID: $1 ended with $?: somebody is given it again"
		publish "$reply" '-NAK {"delay":10000000000}'
	fi
done
# The server answers once it has read all that was sent.
send PING
until [[ ${got%$'\r'} == PONG ]]; do
	IFS= read -r -t 10 -u 3 got || die 4 "$where closed the connection"
done
