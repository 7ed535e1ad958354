package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is asked to stop in three tones, as its manual has them: SIGINT
// cuts off the clients and writes a checkpoint, SIGQUIT leaves recovery to the
// next start, SIGKILL leaves the rest to the kernel.
var tones = []struct {
	signal syscall.Signal
	wait   time.Duration
}{
	{syscall.SIGINT, 20 * time.Second},
	{syscall.SIGQUIT, 6 * time.Second}, // Postgres itself kills what hangs after 5 s
	{syscall.SIGKILL, 5 * time.Second},
}

// pollEvery is how often a process or a file that cannot tell is looked at.
const pollEvery = 10 * time.Millisecond

// tool is a command of Postgres in dir, as the account and in a process group
// of its own, so that a terminal's Ctrl-C reaches muster alone. It gets
// nothing of muster's environment that could be a secret or a setting.
func tool(ctx context.Context, a *account, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// macOS refuses a server without a locale; LC_ALL also keeps messages in
	// the language that this package reads.
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
	for _, key := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(key); ok {
			cmd.Env = append(cmd.Env, key+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: a.credential()}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// runTool runs a tool to its end and returns what it printed. It dies with
// this process.
func runTool(cmd *exec.Cmd) (string, error) {
	// The kernel's signal follows the thread, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWith(cmd.SysProcAttr, syscall.SIGKILL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		fault := firstFault(string(out), "FATAL:", "PANIC:", "error:")
		if fault == "" {
			fault = lastLine(string(out))
		}
		return string(out), fmt.Errorf("%s: %w%s", filepath.Base(cmd.Path), err, fault)
	}
	return string(out), nil
}

// firstFault is what a program complained of first, which is what follows one of
// the marks, with its hint: what it says last may be no more than how it tidied
// up. Empty: it did not complain.
func firstFault(out string, marks ...string) string {
	fault := ""
	for line := range strings.Lines(out) {
		if _, hint, ok := strings.Cut(line, "HINT:"); ok && fault != "" {
			return fault + ": " + strings.TrimSpace(hint)
		}
		for _, mark := range marks {
			if _, text, ok := strings.Cut(line, mark); ok && fault == "" {
				fault = ": " + strings.TrimSpace(text)
			}
		}
	}
	return fault
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return ": " + last
	}
	return ""
}

// process is a child that runs until it is stopped.
type process struct {
	pid  int
	done chan struct{} // closed when the child has been waited for
	err  error         // how it ended; read after done
}

// launch starts cmd and waits for its end in the background. One thread does
// both, so that on Linux the child gets SIGINT when this process ends in
// whatever way.
func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	// done is what stop waits for.
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		dieWith(cmd.SysProcAttr, syscall.SIGINT)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	return p, <-started
}

// stop returns when the child is gone. When ctx ends before that, the next
// tone comes at once.
func (p *process) stop(ctx context.Context) error {
	for _, tone := range tones {
		// A child that has ended is waited for at once, so that its number
		// cannot have gone to another process.
		select {
		case <-p.done:
			return nil
		default:
		}
		if err := syscall.Kill(p.pid, tone.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres, process %d: %w", p.pid, err)
		}
		limit := time.NewTimer(tone.wait)
		hurry := ctx.Done()
		if ctx.Err() != nil {
			hurry = nil // it has had its effect; this tone gets its time
			limit.Reset(min(tone.wait, time.Second))
		}
		select {
		case <-p.done:
		case <-limit.C:
		case <-hurry:
		}
		limit.Stop()
	}
	select {
	case <-p.done:
		return nil
	default:
		return fmt.Errorf("stop postgres: process %d outlived SIGKILL", p.pid)
	}
}

// evict makes sure that no server runs on dataDir, whose lock this process
// holds: a server that is there belonged to a muster which was killed. It is
// stopped, not adopted: its settings and its port may be other ones.
func evict(ctx context.Context, dataDir string) (bool, error) {
	pidFile := filepath.Join(dataDir, "postmaster.pid")
	pid, err := readPID(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !serves(ctx, pid, dataDir) {
		// Postgres removes a stale file itself, but not while its number
		// belongs to some other process of the same user.
		if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return false, nil
	}
	for _, tone := range tones {
		if err := syscall.Kill(pid, tone.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return false, fmt.Errorf("stop the postgres that a killed muster left, process %d: %w", pid, err)
		}
		gone, err := poll(ctx, tone.wait, func() bool { return !serves(ctx, pid, dataDir) })
		if err != nil {
			return false, err
		}
		if gone {
			return true, nil
		}
	}
	return false, fmt.Errorf("the postgres that a killed muster left, process %d, outlived SIGKILL", pid)
}

// poll asks until the answer is yes or wait is over; its error is that of ctx.
func poll(ctx context.Context, wait time.Duration, yes func() bool) (bool, error) {
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if yes() {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-limit.C:
			return yes(), nil
		case <-tick.C:
		}
	}
}

// readPID reads the first line of a postmaster.pid; 0 where it is damaged.
func readPID(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 1 {
		return 0, nil
	}
	return pid, nil
}

// serves reports whether process pid is a server on dataDir. A number alone
// proves nothing: it may belong to another program by now, or to a dead one
// that nobody has waited for.
func serves(ctx context.Context, pid int, dataDir string) bool {
	if pid < 1 {
		return false
	}
	if _, err := os.Stat("/proc/self/cmdline"); err == nil {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && slices.Contains(strings.Split(string(b), "\x00"), dataDir)
	}
	out, err := exec.CommandContext(ctx, "ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "-D "+dataDir+" ")
}
