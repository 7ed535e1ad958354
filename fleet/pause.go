package fleet

import "time"

// Pause is GitHub's wish to be left alone by a credential.
type Pause struct {
	// Credential is whose it is: the server, and what is known there under one
	// budget. It gives no secret away.
	Credential string
	Until      time.Time // nothing is sent before
	ToldAt     time.Time
	Reason     string // the status and GitHub's words
}
