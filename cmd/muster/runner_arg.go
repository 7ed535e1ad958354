package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// runnerHelp says how commands are told which runner is meant.
const runnerHelp = `RUNNER is the name of a runner: exactly, or in
another case where one runner alone has it. An id is written '#12' or --id 12.
Where several runners may be meant they are shown, nothing is done, and the exit
status is 2.`

// runnerArg is a runner as the command line names it.
type runnerArg struct {
	target  string // empty: any
	name    string
	id      int64 // 0: it is named
	removed bool  // one that is no longer registered is meant
}

// runnerFlags are the flags that say which runner is meant.
type runnerFlags struct {
	id      string
	removed bool
}

// idFlag adds --id.
func (f *runnerFlags) idFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.id, "id", "", "the runner of this `id`, in place of RUNNER")
}

// removedFlag adds --removed.
func (f *runnerFlags) removedFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.removed, "removed", false, "a runner that is no longer registered, instead")
}

// targetAndRunner wants TARGET RUNNER, or TARGET alone with --id.
func targetAndRunner(cmd *cobra.Command, args []string) error {
	if cmd.Flags().Changed("id") {
		return cobra.ExactArgs(1)(cmd, args)
	}
	return cobra.ExactArgs(2)(cmd, args)
}

// inTarget reads the arguments that targetAndRunner lets through.
func (f *runnerFlags) inTarget(args []string) (runnerArg, error) {
	runner := ""
	if len(args) == 2 {
		runner = args[1]
	}
	return f.read(args[0], runner)
}

// idForm is an id as GitHub writes it: 0700 and +700 are none.
var idForm = regexp.MustCompile(`^[1-9][0-9]{0,18}$`)

// read reads a runner's name or id; an empty name wants an id.
func (f *runnerFlags) read(target, runner string) (runnerArg, error) {
	arg := runnerArg{target: target, name: runner, removed: f.removed}
	id, isID := f.id, f.id != ""
	if digits, marked := strings.CutPrefix(runner, "#"); marked && digits != "" && strings.Trim(digits, "0123456789") == "" {
		id, isID = digits, true
	}
	if !isID {
		if runner == "" {
			return arg, usage("RUNNER is empty, want a name, or an id as in --id 12")
		}
		return arg, nil
	}
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || !idForm.MatchString(id) {
		return arg, usage("%s is not the id of a runner, want digits such as 12", printable(strconv.Quote(id)))
	}
	arg.name, arg.id = "", n
	return arg, nil
}

// String is the runner in messages.
func (r runnerArg) String() string {
	text := printable(r.name)
	if r.id != 0 {
		text = fmt.Sprintf("#%d", r.id)
	}
	if r.target != "" {
		text = r.target + "/" + text
	}
	return text
}

// candidates are the runners that may be meant: of those with the very name, else
// of those with the name in another case. others would be meant with --removed, or
// without it. It is pure.
func (r runnerArg) candidates(found []db.Namesake) (meant, others []db.Namesake) {
	var exact []db.Namesake
	for _, n := range found {
		switch {
		case n.RemovedAt.IsZero() == r.removed:
			others = append(others, n)
			continue
		case r.id == 0 && n.Name == r.name:
			exact = append(exact, n)
		}
		meant = append(meant, n)
	}
	if len(exact) > 0 {
		meant = exact
	}
	return meant, others
}

// findRunner finds the one runner that a command is about. Every command that
// takes a runner uses it, so that a name means the same everywhere. doing is the
// command, for messages.
func findRunner(ctx context.Context, store *db.DB, doing string, r runnerArg) (db.Namesake, error) {
	found, err := store.Namesakes(ctx, r.target, r.name, r.id)
	if err != nil {
		return db.Namesake{}, err
	}
	meant, others := r.candidates(found)
	switch {
	case len(meant) == 1:
		return meant[0], nil
	case len(meant) > 1:
		return db.Namesake{}, usage("%s runner %s: nothing is done, it may be %s: say which, as in muster %s %s --id %d%s",
			doing, r, listed(meant), doing, meant[0].Target, meant[0].ID, r.removedHint())
	case len(others) > 0 && r.removed:
		return db.Namesake{}, exit(exitFailed, "%s runner %s: %s is registered: leave --removed out", doing, r, listed(others))
	case len(others) > 0:
		return db.Namesake{}, exit(exitFailed, "%s runner %s: it is no longer registered, there was %s%s", doing, r, listed(others), removedRemedy(doing))
	}
	return db.Namesake{}, nobody(ctx, store, doing, r)
}

func (r runnerArg) removedHint() string {
	if r.removed {
		return " --removed"
	}
	return ""
}

// removedRemedy is what to do about a runner that is no longer registered, where
// a command can be about one.
func removedRemedy(doing string) string {
	switch doing {
	case "explain", "audit", "unhold":
		return ": add --removed"
	}
	return ""
}

// listed names a few runners.
func listed(runners []db.Namesake) string {
	const most = 5
	var names []string
	for _, n := range runners[:min(len(runners), most)] {
		name := fmt.Sprintf("%s/#%d (%s", n.Target, n.ID, printable(n.Name))
		if !n.RemovedAt.IsZero() {
			name += ", removed " + moment(n.RemovedAt)
		}
		names = append(names, name+")")
	}
	if n := len(runners) - most; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}

// mostNames bounds how many runners a misspelt name is compared with.
const mostNames = 100_000

// nobody is the error for a runner that muster does not know, with those that
// may have been meant.
func nobody(ctx context.Context, store *db.DB, doing string, r runnerArg) error {
	hint := ": see muster runners"
	if r.target != "" {
		hint += " --target " + r.target
	}
	if r.id != 0 {
		return exit(exitFailed, "%s runner %s: muster has never seen one of that id%s", doing, r, hint)
	}
	all, err := store.Names(ctx, r.target, mostNames)
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = n.Name
	}
	if near := fleet.Near(r.name, names, 3); len(near) > 0 {
		hint = ", did you mean " + printable(strings.Join(near, ", ")) + "?"
	}
	if idForm.MatchString(r.name) {
		hint = fmt.Sprintf(": an id is written --id %s", r.name)
	}
	return exit(exitFailed, "%s runner %s: muster has never seen one of that name%s", doing, r, hint)
}
