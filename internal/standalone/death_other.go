//go:build unix && !linux

package standalone

import "syscall"

// dieWith does nothing where the kernel knows no such thing: a server that
// outlives this process is stopped by the next start.
func dieWith(*syscall.SysProcAttr, syscall.Signal) {}
