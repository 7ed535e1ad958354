#!/usr/bin/env bash
#
# token.sh asks muster for a token, with nothing but bash (4.3 or later): it
# speaks the text protocol of NATS over /dev/tcp.
#
#   { read -r token && read -r url; } < <(./token.sh acme)
#   ./config.sh --unattended --url "$url" --token "$token"
#
#   ./config.sh remove --token "$(./token.sh acme removal | head -n 1)"
#
# See usage below for the settings and the exit status. Each run asks anew: to
# repeat a request whose answer got lost and get the same token, give the same
# REQUEST_ID within two minutes.

usage() {
	cat <<'END'
usage: token.sh TARGET [registration|removal]

Prints the token and, on a second line, the address for config.sh --url.

Environment:
  MUSTER_NATS_URL  nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]; default nats://127.0.0.1:4222
  NATS_USER, NATS_PASSWORD, NATS_TOKEN
                   credentials, where the address has none
  MUSTER_HOST      the name under which this host may ask; default: its host name
  MUSTER_TIMEOUT   seconds to wait, for everything together; default 30
  REQUEST_ID       a UUID; default: muster makes one
  DEMAND_ID        the request_id of the message that asked for this host

Exit status: 0 done, 1 an answer that is none, 2 bad usage or a bad request,
3 refused, 4 muster, NATS, GitHub or Postgres not reachable.
END
}

set -u
# Bytes, not characters: NATS counts bytes.
LC_ALL=C

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 403)); then
	echo "token.sh: bash $BASH_VERSION is too old: 4.3 or later is needed" >&2
	exit 2
fi

die() {
	local status=$1
	shift
	printf 'token.sh: %s\n' "$*" >&2
	exit "$status"
}

# quoted makes a JSON string.
quoted() {
	local s=$1
	case $s in *[[:cntrl:]]*) die 2 "a setting has a control character in it" ;; esac
	s=${s//\\/\\\\}
	s=${s//\"/\\\"}
	printf '"%s"' "$s"
}

# field takes a string or a number out of an answer. muster's answers are one
# line of JSON, and what is asked for here holds no escapes.
field() {
	local re="\"$1\":\"?([^\",}]*)"
	[[ $2 =~ $re ]] && printf '%s' "${BASH_REMATCH[1]}"
}

# left is how many seconds are left.
left() {
	local n=$((deadline - SECONDS))
	((n > 0)) || die 4 "no answer from $where within $limit s"
	printf '%s' "$n"
}

# line reads one line of the protocol into $got.
line() {
	local n
	n=$(left) || exit
	IFS= read -r -t "$n" -u 3 got || lost $?
	got=${got%$'\r'}
}

# bytes reads that many bytes into $got.
bytes() {
	local n
	n=$(left) || exit
	got=
	(($1 == 0)) || IFS= read -r -N "$1" -t "$n" -u 3 got || lost $?
}

# lost tells a timeout of read from the end of the connection.
lost() {
	(($1 > 128)) && die 4 "no answer from $where within $limit s"
	die 4 "$where closed the connection"
}

# send need not tell of a connection that is gone: the next line does, and may
# bring the server's reason along.
send() {
	printf '%s\r\n' "$@" >&3
} 2>/dev/null

# hear waits for the server's word on what was sent, or for the answer.
hear() {
	while line; do
		case $got in
		+OK | MSG\ * | HMSG\ *) break ;;
		PING) send PONG ;;
		-ERR*Authorization* | -ERR*Authentication*) die 3 "$where does not accept the login: set NATS_USER and NATS_PASSWORD, or NATS_TOKEN" ;;
		-ERR*ermissions*) die 3 "$where does not let this login ask as host $host: ${got#-ERR }" ;;
		-ERR*) die 4 "$where says ${got#-ERR }" ;;
		esac
	done
}

case ${1-} in -h | --help)
	usage
	exit 0
	;;
esac
if (($# < 1 || $# > 2)); then
	usage >&2
	exit 2
fi
target=$1
kind=${2-registration}
host=${MUSTER_HOST-${HOSTNAME%%.*}}
host=${host,,}
limit=${MUSTER_TIMEOUT-30}
name='^[a-z0-9][a-z0-9-]{0,62}$'
[[ $target =~ $name ]] || die 2 "target \"$target\" is not a name: want lower-case letters, digits and hyphens"
[[ $host =~ $name ]] || die 2 "host \"$host\" is not a name: set MUSTER_HOST to lower-case letters, digits and hyphens"
[[ $kind == registration || $kind == removal ]] || die 2 "kind \"$kind\": want registration or removal"
[[ $limit =~ ^[1-9][0-9]{0,4}$ ]] || die 2 "MUSTER_TIMEOUT \"$limit\": want whole seconds"

subject=muster.v1.token.$host.issue
body="{\"target\":$(quoted "$target"),\"kind\":$(quoted "$kind")"
if [[ -n ${REQUEST_ID-} ]]; then
	body+=",\"request_id\":$(quoted "$REQUEST_ID")" || exit
fi
if [[ -n ${DEMAND_ID-} ]]; then
	body+=",\"demand_id\":$(quoted "$DEMAND_ID")" || exit
fi
body+="}"

# Where to, and as whom.
url=${MUSTER_NATS_URL-nats://127.0.0.1:4222}
no_tls="TLS is more than bash can do; use the nats command: nats --inbox-prefix _INBOX_host.$host request $subject '$body'"
[[ $url == tls://* || $url == wss://* ]] && die 2 "MUSTER_NATS_URL asks for TLS: $no_tls"
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

# verbose: the server says +OK to each line, so that a refused login is heard of.
connect='{"verbose":true,"pedantic":false,"headers":true,"no_responders":true,"name":"token.sh","lang":"bash","version":"1","protocol":1'
if [[ -n $user ]]; then
	connect+=",\"user\":$(quoted "$user"),\"pass\":$(quoted "$password")" || exit
fi
if [[ -n $token ]]; then
	connect+=",\"auth_token\":$(quoted "$token")" || exit
fi
connect+="}"

SECONDS=0
deadline=$limit
# bash has no limit of its own for connecting. The waiting is done by reading
# from a pipe that nobody writes to.
late=
trap 'late=" within $limit s"' ALRM
(
	trap - ALRM
	exec 3<&- >/dev/null 2>&1
	read -r -t "$limit" <> <(:)
	kill -ALRM $$
) &
watch=$!
connected=
{ exec 3<>"/dev/tcp/$server/$port"; } 2>/dev/null && connected=yes
kill "$watch" 2>/dev/null
trap - ALRM
[[ -n $connected ]] || die 4 "cannot reach $where$late"
trap '' PIPE

line
[[ $got == INFO* ]] || die 4 "$where is not a NATS server"
[[ $got == *'"tls_required":true'* ]] && die 2 "$where wants TLS: $no_tls"
[[ $got == *'"headers":true'* ]] || die 4 "$where is too old: it knows no headers"

inbox=_INBOX_host.$host.token-sh-$$-$RANDOM$RANDOM$RANDOM
send "CONNECT $connect"
hear
send "SUB $inbox 1"
hear
send "PUB $subject $inbox ${#body}" "$body"
until [[ $got == MSG* || $got == HMSG* ]]; do
	hear
done

# MSG SUBJECT SID [REPLY] BYTES, HMSG SUBJECT SID [REPLY] HEADER_BYTES BYTES
read -r -a words <<<"$got"
size=${words[-1]} head=0
[[ $got == HMSG* ]] && head=${words[-2]}
if [[ ! $size =~ ^[0-9]{1,6}$ || ! $head =~ ^[0-9]{1,6}$ ]] || ((head > size)); then
	die 4 "$where sent what is not NATS"
fi
bytes "$head"
headers=$got
bytes $((size - head))
answer=$got
exec 3>&-

if [[ $headers == 'NATS/1.0 503'* ]]; then
	die 4 "nobody answers at $where; is muster serve running?"
fi
code=$(field code "$answer")
if [[ -n $code ]]; then
	why=
	[[ $headers =~ Nats-Service-Error:\ *([^$'\r']*) ]] && why=${BASH_REMATCH[1]}
	wait=$(field retry_after_ms "$answer")
	text="$code $(field error "$answer"): $why"
	((${wait:-0} > 0)) && text="${text%; ask again}; ask again in $(((wait + 999) / 1000)) s"
	text+=" (request $(field request_id "$answer"))"
	case $code in
	400) die 2 "$text" ;;
	403 | 409 | 429 | 501) die 3 "$text" ;;
	502 | 503) die 4 "$text" ;;
	*) die 1 "$text" ;;
	esac
fi
secret=$(field token "$answer")
address=$(field url "$answer")
[[ -n $secret && -n $address ]] || die 1 "the answer has no token or no url in it"
printf '%s\n%s\n' "$secret" "$address"
