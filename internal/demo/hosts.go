package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
)

// answerLimit is how long a host waits for its token, as in muster token.
const answerLimit = 30 * time.Second

// Stranger is the host that nobody granted anything.
const Stranger = "stranger-01"

// hosts is what the hosts of the story got.
type hosts struct {
	mu       sync.Mutex
	up       []host   // whose runners are registered
	secrets  []string // every token that was handed over
	issued   int      // answers with a token, repeats included
	repeated bool     // the repeat of a request brought the same answer
	refused  int      // code of the stranger's refusal
}

// host is a machine with a runner of its name.
type host struct{ name, target string }

// tokenRequest is what a host asks.
type tokenRequest struct {
	Target    string `json:"target"`
	Kind      string `json:"kind"`
	RequestID string `json:"request_id"`
	DemandID  string `json:"demand_id,omitempty"` // of the message that asked for the host
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
	for i, name := range names {
		target := "acme"
		if i >= 5 {
			target = "octo"
		}
		request := tokenRequest{Target: target, Kind: "registration", RequestID: uuid.NewString()}
		got, err := s.ask(ctx, name, request)
		if err != nil {
			return err
		}
		if got.Token == "" {
			return fmt.Errorf("host %s asked for a registration token and was refused: %d %s", name, got.Code, got.Error)
		}
		if name == "build-03" {
			again, err := s.ask(ctx, name, request)
			if err != nil {
				return err
			}
			s.hosts.repeated = again == got
		}
		if name == "build-05" {
			if _, err := s.ask(ctx, name, tokenRequest{Target: target, Kind: "removal", RequestID: uuid.NewString()}); err != nil {
				return err
			}
		}
		scope, runner, err := s.sim.RegisterRunner(got.Token, githubsim.RunnerSpec{Name: name, Labels: []string{"team-core"}})
		if err == nil {
			err = s.sim.Connect(scope, runner)
		}
		if err != nil {
			return fmt.Errorf("host %s registers its runner: %w", name, err)
		}
		s.hosts.mu.Lock()
		s.hosts.up = append(s.hosts.up, host{name, target})
		s.hosts.mu.Unlock()
	}
	got, err := s.ask(ctx, Stranger, tokenRequest{Target: "acme", Kind: "registration", RequestID: uuid.NewString()})
	if err != nil {
		return err
	}
	s.hosts.refused = got.Code
	return nil
}

// ask is one request of a host, over a connection of its own.
func (s *stage) ask(ctx context.Context, host string, request tokenRequest) (reply, error) {
	var r reply
	conn, err := queue.Connect(ctx, queue.Config{URL: s.natsURL, Name: host, InboxPrefix: "_INBOX_host." + host, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return r, fmt.Errorf("host %s connects: %w", host, err)
	}
	defer conn.Close()
	body, err := json.Marshal(request)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	answer, _, err := conn.Request(ctx, queue.TokenSubject(host), body)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil {
		return r, fmt.Errorf("host %s asks for a %s token: %w", host, request.Kind, err)
	}
	if r.Token != "" {
		s.hosts.mu.Lock()
		defer s.hosts.mu.Unlock()
		s.hosts.issued++
		s.hosts.secrets = append(s.hosts.secrets, r.Token)
	}
	return r, nil
}
