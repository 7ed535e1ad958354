package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// Exit statuses.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // bad usage or configuration
	exitRefused     = 3 // by a guard
	exitUnreachable = 4 // GitHub, NATS or Postgres
)

// exitError is an error with the exit status it means.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exit(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func usage(format string, args ...any) error { return exit(exitUsage, format, args...) }

// exitCode is what an error means where nobody has said.
func exitCode(err error) int {
	var said *exitError
	var config configError
	var schema *db.SchemaError
	var identity *db.IdentityError
	var unfit *db.UnfitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &said):
		return said.code
	case errors.As(err, &config), errors.As(err, &schema), errors.As(err, &identity), errors.As(err, &unfit):
		return exitUsage
	case errors.Is(err, fleet.ErrUnavailable), errors.Is(err, fleet.ErrRateLimited):
		return exitUnreachable
	}
	return exitFailed
}

// app is what every command needs of the world around it.
type app struct {
	env            func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	configFlag     string
	throwaway      bool // serve's own Postgres need not outlive a crash of the machine
	// begun says that a command has begun to work: errors before that are of
	// usage.
	begun bool
}

// run is the program. It returns its exit status.
func run(ctx context.Context, args []string, env func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: env, stdin: stdin, stdout: &screen{to: stdout}, stderr: &screen{to: stderr}}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if !a.begun {
		code = exitUsage
	}
	a.report(err)
	return code
}

// report writes an error to stderr, one line per fault. Those of the
// configuration begin with their place in the file, as editors want it.
func (a *app) report(err error) {
	var config configError
	begin := "muster: "
	if errors.As(err, &config) {
		begin = ""
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			a.say("%s%s", begin, line)
		}
	}
}

// say writes a line that is no result.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...) // there is nowhere left to complain
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "muster",
		Short: "Keeps a fleet of GitHub self-hosted runners in order",
		Long: `muster keeps a fleet of GitHub self-hosted runners in order: it copies the runner
inventory into Postgres, deletes runners that have long been offline, hands
registration and removal tokens to provisioning hosts over NATS, sizes pools of
hosts by the workflow jobs that wait and run, and leaves an audit trail of all it
does that is read with SQL.

Exit status: 0 done, 1 it ran and failed, 2 bad usage or configuration,
3 refused by a guard, 4 GitHub, NATS or Postgres not reachable.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
		PersistentPreRun: func(*cobra.Command, []string) { a.begun = true },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.configFlag, "config", "",
		"configuration `file` (default: $MUSTER_CONFIG, ./"+localConfig+", "+systemConfig+")")
	root.AddCommand(a.commands()...)
	addLater(root)
	for _, cmd := range root.Commands() {
		group(cmd)
	}
	return root
}

// group makes commands that only hold others show what they hold, and refuse
// what they do not know.
func group(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			return usage("%s wants one of its subcommands: see %s --help", cmd.CommandPath(), cmd.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		group(sub)
	}
}

// commands are all there are, in the order of the contract.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.demoCommand(),
		a.serveCommand(),
		a.migrateCommand(),
		a.triggerCommand(),
		a.runnersCommand(),
		a.downloadsCommand(),
		a.planCommand(),
		a.explainCommand(),
		a.removeCommand(),
		a.policyCommand(),
		a.holdCommand(),
		a.unholdCommand(),
		a.targetCommand(),
		a.tokenCommand(),
		a.poolsCommand(),
		a.auditCommand(),
		a.deadLettersCommand(),
		a.doctorCommand(),
		a.simulateCommand(),
		a.versionCommand(),
	}
}

// loadFor is the configuration with the credential of one target, for commands
// that speak to its GitHub.
func (a *app) loadFor(target string) (*config, error) {
	path, err := findConfig(a.configFlag, a.env)
	if err != nil {
		return nil, usage("%w", err)
	}
	return loadForTarget(path, a.env, target)
}

// load is the configuration for all other commands.
func (a *app) load() (*config, error) {
	path, err := findConfig(a.configFlag, a.env)
	if err != nil {
		return nil, usage("%w", err)
	}
	return loadForReading(path, a.env)
}

// logger writes to stderr, as key=value pairs that people and programs read.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.stderr, nil))
}

// mostReason is how long a reason may be, in bytes: it is shown on one line,
// and travels in events.
const mostReason = 1 << 10

// reasonFlag adds --reason to a command that cannot do without.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "`why`, for the audit trail (required)")
}

// reasonFor is what --reason says, which the audit trail wants to know.
func reasonFor(command, text string) (string, error) {
	switch text = strings.TrimSpace(text); {
	case text == "":
		return "", usage("%s wants --reason: it goes into the audit trail", command)
	case len(text) > mostReason:
		return "", usage("%s: --reason has %d bytes, want at most %d: say where the rest is to be read", command, len(text), mostReason)
	}
	return text, nil
}

// operator is who sits at the command line, for the audit trail.
func operator() fleet.Actor {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return fleet.Actor{Type: fleet.ActorCLI, Name: name}
}
