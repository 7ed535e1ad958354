// Package migrations holds the database schema as numbered SQL files. They are
// forward-only and each runs in a transaction of its own; code must work
// before and after the newest one, so a column is added first and used later.
package migrations

import "embed"

// FS holds the files; package db applies them.
//
//go:embed *.sql
var FS embed.FS
