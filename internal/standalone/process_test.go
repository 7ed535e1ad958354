package standalone

import "testing"

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
		{"no complaint", "one\ntwo\n", ": two"},
		{"nothing", "", ""},
	} {
		if got := firstFault(tt.out); got != tt.want {
			t.Errorf("%s: firstFault = %q, want %q", tt.name, got, tt.want)
		}
	}
}
