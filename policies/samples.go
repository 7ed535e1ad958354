package policies

import (
	"embed"
	"io/fs"
)

//go:embed samples/*.yaml
var samples embed.FS

// Samples holds the sample policies, one file each: reap-long-offline.yaml and
// others. Each says at its head what it is for, and has tests.
func Samples() fs.FS {
	sub, err := fs.Sub(samples, "samples")
	if err != nil {
		panic("policies: the samples are embedded: " + err.Error())
	}
	return sub
}
