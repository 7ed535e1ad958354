package standalone

import "testing"

func TestPostgresDiesWithMuster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	muster, _ := spawn(t, dir)
	pid := postmasterPID(t, dir)
	if err := muster.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = muster.Wait() // says that it was killed
	gone(t, pid, dir)
}
