package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
)

// Stranger is the host that nobody granted anything.
const Stranger = "stranger-01"

// hosts is what the ten hosts of the story got.
type hosts struct {
	secrets  []string // every token that was handed over
	issued   int      // answers with a token, repeats included
	repeated bool     // the repeat of a request brought the same answer
	refused  int      // code of the stranger's refusal
}

// reply is the answer to a token request, or its refusal.
type reply struct {
	RequestID string `json:"request_id"`
	AuditID   string `json:"audit_id"`
	Token     string `json:"token"`
	Code      int    `json:"code"`
	Error     string `json:"error"`
}

// askForTokens has nine hosts ask for registration tokens and become runners,
// one of them twice with the same request id and one also for a removal token,
// and a tenth that has no grant.
func (s *stage) askForTokens(ctx context.Context) error {
	names := []string{"build-01", "build-02", "build-03", "build-04", "build-05", "gpu-01", "gpu-02", "gpu-03", "gpu-04"}
	for i, host := range names {
		target := "acme"
		if i >= 5 {
			target = "octo"
		}
		id := uuid.NewString()
		got, err := s.ask(ctx, host, target, "registration", id)
		if err != nil {
			return err
		}
		if got.Token == "" {
			return fmt.Errorf("host %s asked for a registration token and was refused: %d %s", host, got.Code, got.Error)
		}
		if host == "build-03" {
			again, err := s.ask(ctx, host, target, "registration", id)
			if err != nil {
				return err
			}
			s.hosts.repeated = again == got
		}
		if host == "build-05" {
			if _, err := s.ask(ctx, host, target, "removal", uuid.NewString()); err != nil {
				return err
			}
		}
		scope, runner, err := s.sim.RegisterRunner(got.Token, githubsim.RunnerSpec{Name: host, Labels: []string{"team-core"}})
		if err == nil {
			err = s.sim.Connect(scope, runner)
		}
		if err != nil {
			return fmt.Errorf("host %s registers its runner: %w", host, err)
		}
	}
	got, err := s.ask(ctx, Stranger, "acme", "registration", uuid.NewString())
	if err != nil {
		return err
	}
	s.hosts.refused = got.Code
	return nil
}

// ask is one request of a host, over a connection of its own.
func (s *stage) ask(ctx context.Context, host, target, kind, requestID string) (reply, error) {
	var r reply
	conn, err := queue.Connect(ctx, queue.Config{URL: s.natsURL, Name: host, InboxPrefix: "_INBOX_host." + host, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return r, fmt.Errorf("host %s connects: %w", host, err)
	}
	defer conn.Close()
	body, err := json.Marshal(map[string]string{"target": target, "kind": kind, "request_id": requestID})
	if err != nil {
		return r, err
	}
	answer, _, err := conn.Request(ctx, queue.TokenSubject(host), body)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil {
		return r, fmt.Errorf("host %s asks for a %s token: %w", host, kind, err)
	}
	if r.Token != "" {
		s.hosts.issued++
		s.hosts.secrets = append(s.hosts.secrets, r.Token)
	}
	return r, nil
}
