package standalone

import (
	"errors"
	"math"
	"testing"
)

func TestFirstFault(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, out, want string }{
		{"initdb on a full disk", `running bootstrap script ... 2026-11-29 03:47:02.580 UTC [28078] FATAL:  could not extend file "base/1/2691": No space left on device
2026-11-29 03:47:02.580 UTC [28078] HINT:  Check free disk space.
child process exited with exit code 134
initdb: removing data directory "/data/initdb-1/data"
`, `: could not extend file "base/1/2691": No space left on device: Check free disk space.`},
		{"initdb itself", "creating directory x ...\ninitdb: error: could not create directory \"x\": Permission denied\ninitdb: removing\n",
			`: could not create directory "x": Permission denied`},
		{"no complaint", "one\ntwo\n", ""},
		{"nothing", "", ""},
	} {
		if got := firstFault(tt.out, "FATAL:", "PANIC:", "error:"); got != tt.want {
			t.Errorf("%s: firstFault = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHowAServerEnded(t *testing.T) {
	t.Parallel()
	const log = `LOG:  error: nothing yet
LOG:  starting PostgreSQL
FATAL:  could not write lock file "postmaster.pid": No space left on device
HINT:  Check free disk space.
LOG:  database system is shut down
`
	status := errors.New("exit status 1")
	for _, tt := range []struct {
		name, log string
		free      uint64
		want      string
	}{
		{"a full disk, whose log is empty", "", 4096, ": exit status 1; 4 KiB are free for /d, which is too little: make room there"},
		{"a disk that nothing is known of", "", math.MaxUint64, ": exit status 1"},
		{"the log knows", log, tight, `: could not write lock file "postmaster.pid": No space left on device: Check free disk space.`},
		{"the log knows something else", "LOG:  a\nLOG:  b\n", tight, ": exit status 1: LOG:  b"},
	} {
		if got := howEnded(status, tt.log, "/d", tt.free); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
