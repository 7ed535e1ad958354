package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func (a *app) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema up to date, or say how far it is",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "up",
			Short: "Run the migrations that are missing",
			Long: `Run the migrations that are missing, as the role of migrate_url, which may
create schemas; without one as that of database_url. Several at once do no harm.

Where the login of database_url could change the audit trail, migrate up also
makes a login for muster serve, muster_serve_DATABASE, which could not. Its
password follows from that of database_url and is stored nowhere.`,
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.migrateUp(cmd.Context()) },
		},
		a.migrateStatusCommand(),
	)
	return cmd
}

// migrateURL is the address of the role that owns the schema.
func (a *app) migrateURL() (fleet.Secret, error) {
	c, err := a.load()
	if err != nil {
		return fleet.Secret{}, err
	}
	if !c.migrateURL.IsZero() {
		return c.migrateURL, nil
	}
	return databaseURL(c)
}

func (a *app) migrateUp(ctx context.Context) error {
	url, err := a.migrateURL()
	if err != nil {
		return err
	}
	ran, err := db.Migrate(ctx, url.Reveal())
	for _, name := range ran {
		if _, err := fmt.Fprintln(a.stdout, name); err != nil {
			return err
		}
	}
	if errors.Is(err, fleet.ErrUnavailable) {
		return unreached(ctx, "migrate_url or database_url", err)
	}
	if err != nil {
		return err
	}
	if len(ran) == 0 {
		a.say("the schema is up to date")
	}
	return a.makeLogin(ctx, url)
}

// makeLogin makes the login that muster serve uses where that of database_url
// could weaken the audit trail. Where it cannot be made the schema is there all
// the same, and serve works, so that this is no failure.
func (a *app) makeLogin(ctx context.Context, owner fleet.Secret) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	service, err := databaseURL(c)
	if err != nil {
		return nil // only migrate_url is configured here: whoever runs serve has the other
	}
	login, err := db.MakeLogin(ctx, owner.Reveal(), service.Reveal())
	switch {
	case err != nil && login == "":
		a.say("whether muster serve needs a login of its own could not be found out: %s", oneLine(err))
	case err != nil:
		a.say("muster serve gets no login of its own, so that it could weaken the audit trail: %s: %s", oneLine(err), weaknessMend)
	case login != "":
		a.say("muster serve works as %s, which can add to the audit trail and change nothing there", login)
	}
	return nil
}

type schemaRow struct {
	Have    int      `json:"have"`
	Want    int      `json:"want"`
	Missing []string `json:"missing"`
}

func (a *app) migrateStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say which migrations have run and which are missing",
		Args:  cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		url, err := a.migrateURL()
		if err != nil {
			return err
		}
		store, err := db.Open(ctx, url.Reveal())
		if err != nil {
			return usage("%w", err)
		}
		defer store.Close()
		limited, cancel := context.WithTimeout(ctx, reachLimit)
		defer cancel()
		if err := store.Ping(limited); err != nil {
			return unreached(ctx, "migrate_url or database_url", err)
		}
		s, err := store.Status(limited)
		if err != nil {
			return err
		}
		row := schemaRow{s.Have, s.Want, append([]string{}, s.Missing...)}
		if *output == formatJSON {
			return writeJSON(a.stdout, row)
		}
		missing := strings.Join(row.Missing, ", ")
		return writeTable(a.stdout, []string{"HAVE", "WANT", "MISSING"}, [][]string{{fmt.Sprint(row.Have), fmt.Sprint(row.Want), missing}})
	}
	return cmd
}
