package fleet

import "errors"

// What can go wrong with the outside world, as far as callers act on it.
// Adapters translate their own errors into these; test with errors.Is.
var (
	// ErrNotFound says that the thing does not exist, or that the credential
	// cannot see it: GitHub answers 404 to both.
	ErrNotFound = errors.New("not found")
	// ErrBusy says that GitHub refused to delete a runner because it is
	// running a workflow job.
	ErrBusy = errors.New("runner is busy")
	// ErrRateLimited says that GitHub asked for a pause, or that its limits on
	// the credential leave no room for the request now.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnauthorized says that the credential was not accepted (401).
	ErrUnauthorized = errors.New("credential not accepted")
	// ErrForbidden says that the credential may not do this (403).
	ErrForbidden = errors.New("forbidden")
	// ErrUnavailable says that the other side did not answer, or answered
	// with a fault of its own (transport errors, timeouts, 5xx).
	ErrUnavailable = errors.New("unavailable")
	// ErrMalformed says that the answer arrived but cannot be believed:
	// wrong status, wrong shape, missing fields.
	ErrMalformed = errors.New("malformed answer")
	// ErrConflict says that a row moved on between the reading and the
	// writing: somebody else was first.
	ErrConflict = errors.New("changed meanwhile")
)
