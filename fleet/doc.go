// Package fleet is the vocabulary of muster: the nouns and verbs that every
// other package shares. It knows nobody, does no I/O, carries no wire or
// column tags and imports the standard library only.
//
// A runner is always GitHub's registration, a host the machine that runs it,
// a workflow job GitHub's job, a job muster's own, and a trigger the message
// that made a job run.
package fleet
