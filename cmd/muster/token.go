package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// answerLimit is how long a host waits for its token: longer than muster may
// take to get it from GitHub and record it.
const answerLimit = 30 * time.Second

// tokenRequest is what goes out on the wire.
type tokenRequest struct {
	V          int      `json:"v"`
	RequestID  string   `json:"request_id"`
	Target     string   `json:"target"`
	Kind       string   `json:"kind"`
	RunnerName string   `json:"runner_name,omitempty"`
	Labels     []string `json:"labels,omitempty"`
	DemandID   string   `json:"demand_id,omitempty"`
}

// tokenAnswer is what comes back, token or refusal.
type tokenAnswer struct {
	RequestID    string    `json:"request_id"`
	Target       string    `json:"target"`
	Kind         string    `json:"kind"`
	URL          string    `json:"url"`
	Token        string    `json:"token"`
	ExpiresAt    time.Time `json:"expires_at"`
	AuditID      string    `json:"audit_id"`
	Code         int       `json:"code"`
	Error        string    `json:"error"`
	RetryAfterMS int64     `json:"retry_after_ms"`
}

func (a *app) tokenCommand() *cobra.Command {
	var q tokenRequest
	var host, command string
	cmd := &cobra.Command{
		Use:   "token --target T --host H --kind registration|removal",
		Short: "Ask muster serve for a token, as a host does",
		Long: `Ask muster serve for a token over NATS, as the host H. Which host may ask for
what stands under grants in the service's configuration, and who may speak for a
host is for the permissions of NATS.

Without --exec the token is printed, with the url that config.sh takes. With
--exec it is not: the command runs with {token} and {url} replaced, each inside
its own word and without a shell:

  muster token --target acme --host build-01 --kind registration \
    --exec './config.sh --unattended --url {url} --token {token}'`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.Target, "target", "", "the `target` to register with")
	flags.StringVar(&host, "host", "", "the `name` of the host that asks")
	flags.StringVar(&q.Kind, "kind", "", "registration, removal or jit")
	flags.StringVar(&q.RunnerName, "runner-name", "", "`name` of the runner, for jit")
	flags.StringSliceVar(&q.Labels, "labels", nil, "`labels` of the runner, for jit")
	flags.StringVar(&q.DemandID, "demand-id", "", "the request_id of the `message` that asked for this host")
	flags.StringVar(&command, "exec", "", "run this `command` with the token instead of printing it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var words []string
		if cmd.Flags().Changed("exec") {
			var err error
			if words, err = execWords(command); err != nil {
				return usage("--exec: %w", err)
			}
		}
		answer, err := a.token(cmd.Context(), host, q)
		if err != nil {
			return err
		}
		if words != nil {
			return a.execWith(cmd.Context(), words, answer)
		}
		return a.printToken(answer, *output)
	}
	return cmd
}

// token checks the request as far as can be done here, asks, and turns a
// refusal into an error.
func (a *app) token(ctx context.Context, host string, q tokenRequest) (tokenAnswer, error) {
	var none tokenAnswer
	kind := fleet.TokenKind(q.Kind)
	switch {
	case !fleet.ValidName(host):
		return none, usage("--host %q cannot be the name of a host: %s", host, nameRule)
	case !fleet.ValidName(q.Target):
		return none, usage("--target %q cannot be the name of a target: %s", q.Target, nameRule)
	case !slices.Contains(kinds, kind):
		return none, usage("--kind %q is unknown, want registration, removal or jit", q.Kind)
	case kind != fleet.TokenJIT && (q.RunnerName != "" || len(q.Labels) > 0):
		return none, usage("--runner-name and --labels are for --kind jit: config.sh sets them for other runners")
	}
	c, err := a.load()
	if err != nil {
		return none, err
	}
	conn, err := connectNATS(ctx, c, "_INBOX_host."+host)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	q.V, q.RequestID = 1, uuid.NewString()
	body, err := json.Marshal(q)
	if err != nil {
		return none, fmt.Errorf("ask for a token: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	text, headers, err := conn.Request(limited, queue.TokenSubject(host), body)
	if err != nil {
		return none, fmt.Errorf("ask for a token: %w", err)
	}
	var answer tokenAnswer
	// The error of the decoder may repeat what it could not read.
	if json.Unmarshal(text, &answer) != nil {
		return none, fmt.Errorf("ask for a token: the answer is not what muster serve gives: %w", fleet.ErrMalformed)
	}
	if answer.Code != 0 || answer.Error != "" {
		return none, refused(host, q, answer, headers["Nats-Service-Error"])
	}
	if answer.Token == "" || answer.URL == "" || answer.RequestID != q.RequestID {
		return none, fmt.Errorf("ask for a token: the answer lacks the token, the url or the request's id: %w", fleet.ErrMalformed)
	}
	return answer, nil
}

// refused is the error, and the exit status, of a refusal.
func refused(host string, q tokenRequest, r tokenAnswer, why string) error {
	// The table is in docs/tokens.md, and docs/examples/token.sh keeps to it.
	code, ok := map[int]int{
		400: exitUsage, 403: exitRefused, 409: exitRefused, 429: exitRefused, 501: exitRefused,
		502: exitUnreachable, 503: exitUnreachable,
	}[r.Code]
	if !ok {
		code = exitFailed
	}
	text := fmt.Sprintf("a %s token of %s for %s was refused: %d %s", q.Kind, q.Target, host, r.Code, printable(r.Error))
	if why != "" {
		text += ": " + printable(why)
	}
	if r.RetryAfterMS > 0 {
		text = strings.TrimSuffix(text, "; ask again") + fmt.Sprintf("; ask again in %s", (time.Duration(r.RetryAfterMS)*time.Millisecond).Round(time.Second))
	}
	return exit(code, "%s", text)
}

func (a *app) printToken(t tokenAnswer, output format) error {
	if output == formatJSON {
		return writeJSON(a.stdout, struct {
			Target    string    `json:"target"`
			Kind      string    `json:"kind"`
			URL       string    `json:"url"`
			Token     string    `json:"token"`
			ExpiresAt time.Time `json:"expires_at"`
			RequestID string    `json:"request_id"`
			AuditID   string    `json:"audit_id"`
		}{t.Target, t.Kind, t.URL, t.Token, t.ExpiresAt.UTC(), t.RequestID, t.AuditID})
	}
	return writeTable(a.stdout, []string{"TOKEN", "URL", "EXPIRES"}, [][]string{{t.Token, t.URL, moment(t.ExpiresAt)}})
}

// execWords splits a command into its words and looks for the token's place.
func execWords(command string) ([]string, error) {
	words, err := split(command)
	switch {
	case err != nil:
		return nil, err
	case len(words) == 0:
		return nil, errors.New("no command")
	case strings.ContainsAny(words[0], "{}"):
		return nil, errors.New("the first word is the program, which takes no placeholder")
	case !strings.Contains(strings.Join(words[1:], " "), "{token}"):
		return nil, errors.New("no {token} among the words: the command would not get the token")
	}
	return words, nil
}

// split takes a command apart at its white space. Single quotes keep
// everything, double quotes everything but \" and \\, and a backslash the next
// character. There is no other expansion.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun, quote, escaped := false, rune(0), false
	for _, r := range s {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			begun, escaped = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			begun, quote = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash at its end is left open")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// execWith runs the command with the token in its place. Nothing here repeats
// the words: they hold the token now.
func (a *app) execWith(ctx context.Context, words []string, t tokenAnswer) error {
	filled := make([]string, len(words))
	replace := strings.NewReplacer("{token}", t.Token, "{url}", t.URL)
	for i, word := range words {
		filled[i] = replace.Replace(word)
	}
	cmd := exec.CommandContext(ctx, filled[0], filled[1:]...) //nolint:gosec // running it is what --exec is for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, unscreened(a.stdout), unscreened(a.stderr)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second // then it is killed
	err := cmd.Run()
	var status *exec.ExitError
	var program *exec.Error
	switch {
	case errors.As(err, &status):
		return exit(exitFailed, "run %s: %s", words[0], status.ProcessState)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return exit(exitFailed, "run %s: there is no such program", words[0])
	case errors.As(err, &program):
		return exit(exitFailed, "run %s: %w", words[0], program.Err)
	case err != nil:
		return exit(exitFailed, "run %s: %w", words[0], pathless(err))
	}
	return nil
}
