package standalone

import "syscall"

// dieWith has the kernel send sig to the child when the thread that starts it
// ends, which launch makes the same as the end of this process.
func dieWith(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
