#!/usr/bin/env bash
#
# drain.sh answers muster's drains for one host with one runner: GitHub's runner
# application in a directory of this machine. Nothing but bash (4.3 or later),
# pgrep and ps is needed; it speaks the text protocol of NATS over /dev/tcp.
#
#   MUSTER_HOST=build-01 ./drain.sh ~/actions-runner && shutdown now
#
# See usage below. It ends when the connection is lost: have it started again.

usage() {
	cat <<'END'
usage: drain.sh DIRECTORY

Answers whether a workflow job is on the runner application in DIRECTORY, and
ends once muster has released the host.

Asked to drain, it stops the application's listener (SIGSTOP), so that it cannot
take a job, and looks whether a worker is there. If so, the listener goes on
and the answer is that the host is busy. If not, the listener stays stopped until
the release, or goes on after DRAIN_LIFE without one. Where no listener runs
there is no answer, and muster leaves the runner alone.

Environment:
  MUSTER_NATS_URL  nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]; default nats://127.0.0.1:4222
  NATS_USER, NATS_PASSWORD, NATS_TOKEN
                   credentials, where the address has none
  MUSTER_HOST      the host's name with muster; default: its host name
  RUNNER_NAME      the name of the runner; default: MUSTER_HOST
  DRAIN_LIFE       seconds to wait for the release; default 600

Exit status: 0 released, 2 bad usage, 3 refused, 4 NATS not reachable or lost.
END
}

set -u
# Bytes, not characters: NATS counts bytes.
LC_ALL=C

die() {
	local status=$1
	shift
	printf 'drain.sh: %s\n' "$*" >&2
	exit "$status"
}

say() { printf 'drain.sh: %s\n' "$*" >&2; }

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

# processes prints those of the application's program of that name.
processes() { pgrep -f -- "$directory/bin/Runner\.$1( |\$)"; }

# signal sends a signal to the listener.
signal() {
	local pids
	mapfile -t pids < <(processes Listener)
	((${#pids[@]} > 0)) && kill "-$1" "${pids[@]}" 2>/dev/null
}

# stopped waits until the listener is, for two seconds at most.
stopped() {
	local try pids states
	for ((try = 0; try < 20; try++)); do
		pids=$(processes Listener)
		[[ -n $pids ]] || return 1
		states=$(ps -o state= -p "${pids//$'\n'/,}")
		[[ -n $states && -z ${states//[T+<sNl[:space:]]/} ]] && return 0
		read -r -t 0.1 <> <(:)
	done
	return 1
}

# resume lets the runner take workflow jobs again.
resume() {
	drained=
	signal CONT
}

# drain answers whether a job is on the runner.
drain() {
	local runner decision answer
	runner=$(field runner "$body")
	decision=$(field decision_id "$body")
	if [[ -z $reply || -z $decision || $runner != "$name" ]]; then
		say "asked to drain runner \"$runner\", which is not $name: no answer"
		return
	fi
	if ! signal STOP || ! stopped; then
		say "decision $decision: no listener to stop in $directory: no answer"
		resume
		return
	fi
	if processes Worker >/dev/null; then
		say "decision $decision: at work"
		resume
		answer='{"v":1,"busy":true}'
	else
		say "decision $decision: drained, waiting for the release"
		drained=$decision until=$((SECONDS + life))
		answer='{"v":1,"busy":false}'
	fi
	send "PUB $reply ${#answer}" "$answer"
}

# release ends it all, where the drain that it belongs to stands.
release() {
	local decision
	decision=$(field decision_id "$body")
	if [[ -z $drained || $decision != "$drained" ]]; then
		say "release of decision $decision, whose drain does not stand: left"
		return
	fi
	drained=
	signal KILL
	say "released"
	exit 0
}

case ${1-} in -h | --help)
	usage
	exit 0
	;;
esac
if (($# != 1)); then
	usage >&2
	exit 2
fi
directory=$(cd -P -- "$1" 2>/dev/null && pwd) || die 2 "no directory $1"
host=${MUSTER_HOST-${HOSTNAME%%.*}}
host=${host,,}
[[ $host =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] || die 2 "host \"$host\" is not a name: set MUSTER_HOST to lower-case letters, digits and hyphens"
name=${RUNNER_NAME-$host}
life=${DRAIN_LIFE-600}
[[ $life =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "DRAIN_LIFE \"$life\": want whole seconds"
command -v pgrep ps >/dev/null || die 2 "pgrep and ps are needed"
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
connect='{"verbose":false,"pedantic":false,"name":"drain.sh","lang":"bash","version":"1","protocol":1'
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
send "CONNECT $connect" "SUB muster.v1.host.$host.drain 1" "SUB muster.v1.host.$host.release 2" PING

drained='' until=0 unanswered=1 heard='' part=''
# A runner that waits for a release is not left stopped.
trap '[[ -z $drained ]] || resume' EXIT
trap 'exit 4' TERM INT HUP
while :; do
	wait=60
	if [[ -n $drained ]]; then
		if ((SECONDS >= until)); then
			say "no release within $life s: the runner goes on"
			resume
		elif ((until - SECONDS < wait)); then
			wait=$((until - SECONDS))
		fi
	fi
	IFS= read -r -t "$wait" -u 3 got
	status=$?
	part+=$got
	if ((status > 128)); then
		((wait < 60 || unanswered++ < 2)) || die 4 "$where is silent"
		send PING
		continue
	fi
	((status == 0)) || die 4 "$where closed the connection"
	got=${part%$'\r'} part=
	case $got in
	PING) send PONG ;;
	PONG)
		[[ -n $heard ]] || say "listening for $host at $where"
		heard=yes unanswered=0
		;;
	-ERR*Authorization* | -ERR*Authentication*) die 3 "$where does not accept the login: set NATS_USER and NATS_PASSWORD, or NATS_TOKEN" ;;
	-ERR*ermissions*) die 3 "$where does not let this login answer for host $host: ${got#-ERR }" ;;
	-ERR*) die 4 "$where says ${got#-ERR }" ;;
	MSG\ *)
		read -r -a words <<<"$got"
		reply=
		((${#words[@]} < 5)) || reply=${words[3]}
		if ! IFS= read -r -N "${words[-1]}" -t 60 -u 3 body || ! IFS= read -r -t 60 -u 3 got; then
			die 4 "$where broke off in a message"
		fi
		case ${words[2]} in
		1) drain ;;
		2) release ;;
		esac
		;;
	esac
done
