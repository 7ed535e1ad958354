package githubsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// command is the body of every POST to the control API; each command takes the
// fields that it needs and refuses the others.
type command struct {
	Scope     string   `json:"scope"`
	To        string   `json:"to"`
	IDs       []int64  `json:"ids"`
	Names     []string `json:"names"`
	Name      string   `json:"name"`
	OS        string   `json:"os"`
	Labels    []string `json:"labels"`
	Ephemeral bool     `json:"ephemeral"`
	Online    bool     `json:"online"`
	Busy      bool     `json:"busy"`
	Count     int      `json:"count"`
	Listings  int      `json:"listings"`
	On        bool     `json:"on"`
	Token     string   `json:"token"`
	Access    Access   `json:"access"`
	Fault     int64    `json:"fault"`
	faultFields
	jobFields
	limitsCommand
	appCommand
	groupCommand
}

// verb is one command: the fields it takes, and what it does.
type verb struct {
	takes string // separated by spaces; required ones end in !
	do    func(s *Sim, c command, scope fleet.Scope) (any, error)
}

var verbs = map[string]verb{
	"scope":  {"scope!", func(s *Sim, _ command, scope fleet.Scope) (any, error) { return nil, s.AddScope(scope) }},
	"create": {"scope! name! os labels group ephemeral online busy count", (*Sim).commandCreate},
	"connect": {"scope! ids names", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return s.each(c, scope, s.Connect)
	}},
	"kill": {"scope! ids names", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return s.each(c, scope, s.Kill)
	}},
	"assign": {"scope! ids names", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return s.each(c, scope, s.Assign)
	}},
	"finish": {"scope! ids names", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return s.each(c, scope, s.Finish)
	}},
	"remove": {"scope! ids names", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return s.each(c, scope, s.Remove)
	}},
	"register":     {"token! name! os labels group ephemeral", (*Sim).commandRegister},
	"hide":         {"scope! listings! ids names count", (*Sim).commandHide},
	"show-offline": {"scope! listings! ids names", (*Sim).commandShowOffline},
	"empty": {"scope! listings!", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return nil, s.EmptyListing(scope, c.Listings)
	}},
	"down": {"on!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		s.Down(c.On)
		return nil, nil
	}},
	"maintenance": {"on!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		s.Maintenance(c.On)
		return nil, nil
	}},
	"accept": {"token!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		s.Accept(c.Token)
		return nil, nil
	}},
	"revoke": {"token!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		s.Revoke(c.Token)
		return nil, nil
	}},
	"grant":  {"token! scope! access!", (*Sim).commandGrant},
	"limits": {limitsFields, (*Sim).commandLimits},

	"app":       {"app! public_key! permissions installations", (*Sim).commandApp},
	"suspend":   {"installation! on!", func(s *Sim, c command, _ fleet.Scope) (any, error) { return nil, s.Suspend(c.Installation, c.On) }},
	"uninstall": {"installation!", func(s *Sim, c command, _ fleet.Scope) (any, error) { return nil, s.Uninstall(c.Installation) }},
	"revoke-installation-tokens": {"installation!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		return nil, s.RevokeInstallationTokens(c.Installation)
	}},
	"rename": {"scope! to!", (*Sim).commandRename},
	"group":  {groupTakes, (*Sim).commandGroup},
	"public": {"scope! on!", func(s *Sim, c command, scope fleet.Scope) (any, error) {
		return nil, s.SetPublic(scope, c.On)
	}},

	"fault":   {faultTakes, (*Sim).commandFault},
	"unfault": {"fault", (*Sim).commandUnfault},

	"queue-job": {queueTakes, (*Sim).commandQueueJob},
	"approve": {"job!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		return nil, s.Approve(c.Job)
	}},
	"run-job":    {"scope! job! ids names", (*Sim).commandRunJob},
	"move-job":   {"scope! job! ids names", (*Sim).commandMoveJob},
	"finish-job": {"job! conclusion", (*Sim).commandFinishJob},
	"dispatch":   {"scope!", (*Sim).commandDispatch},
	"rerun": {"run!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		return nil, s.Rerun(c.Run)
	}},
	"hook": {hookTakes, (*Sim).commandHook},
	"unhook": {"hook!", func(s *Sim, c command, _ fleet.Scope) (any, error) {
		return nil, s.RemoveHook(c.Hook)
	}},
	"deliver": {"", (*Sim).commandDeliver},
}

// errCommand marks what is the asker's fault.
var errCommand = errors.New("bad command")

// ControlHandler is the control API, for a listener that is not the Sim's own:
//
//	POST /_sim/COMMAND           one of scope, create, connect, kill, assign,
//	                             finish, remove, register, hide, show-offline,
//	                             empty, down, maintenance, accept, revoke,
//	                             grant, rename, group, public, limits, app,
//	                             suspend, uninstall,
//	                             revoke-installation-tokens, fault, unfault,
//	                             queue-job, approve, run-job, move-job,
//	                             finish-job, dispatch, rerun, hook, unhook and
//	                             deliver, with a JSON body
//	GET  /_sim/jobs              the truth about the workflow jobs
//	GET  /_sim/deliveries?hook=N what a webhook was sent
//	GET  /_sim/faults            the faults at work, as fault takes them
//	GET  /_sim/log?since=SEQ     the events after that one
//	GET  /_sim/runners?scope=S   the truth about the runners of a scope
//
// Whoever reaches it controls the simulator.
func (s *Sim) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /_sim/{verb}", func(w http.ResponseWriter, r *http.Request) {
		result, err := s.command(r)
		reply(w, result, err)
	})
	mux.HandleFunc("GET /_sim/log", func(w http.ResponseWriter, r *http.Request) {
		since, err := int64(0), error(nil)
		if text := r.URL.Query().Get("since"); text != "" {
			since, err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			reply(w, nil, fmt.Errorf("%w: since %q: want the seq of an event", errCommand, r.URL.Query().Get("since")))
			return
		}
		reply(w, s.LogSince(since), nil)
	})
	mux.HandleFunc("GET /_sim/jobs", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, s.Jobs(), nil)
	})
	mux.HandleFunc("GET /_sim/deliveries", s.controlDeliveries)
	mux.HandleFunc("GET /_sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, s.Faults(), nil)
	})
	mux.HandleFunc("GET /_sim/runners", func(w http.ResponseWriter, r *http.Request) {
		scope, err := fleet.ParseScope(r.URL.Query().Get("scope"))
		if err != nil {
			reply(w, nil, fmt.Errorf("%w: %w", errCommand, err))
			return
		}
		states := s.Snapshot(scope)
		if states == nil {
			reply(w, nil, fmt.Errorf("scope %s: %w", scope, fleet.ErrNotFound))
			return
		}
		reply(w, states, nil)
	})
	return mux
}

func (s *Sim) command(r *http.Request) (any, error) {
	name := r.PathValue("verb")
	v, ok := verbs[name]
	if !ok {
		return nil, fmt.Errorf("command %s: %w", name, fleet.ErrNotFound)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: read the body: %w", errCommand, name, err)
	}
	c, err := decodeCommand(body, v.takes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errCommand, name, err)
	}
	var scope fleet.Scope
	if c.Scope != "" {
		if scope, err = fleet.ParseScope(c.Scope); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errCommand, name, err)
		}
	}
	return v.do(s, c, scope)
}

// decodeCommand accepts one JSON object with the fields that the command takes.
func decodeCommand(body []byte, takes string) (command, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(body, &given); err != nil {
		return command{}, fmt.Errorf("body is not a JSON object: %w", err)
	}
	known := make(map[string]bool)
	for field := range strings.FieldsSeq(takes) {
		field, required := strings.CutSuffix(field, "!")
		known[field] = true
		if raw := given[field]; required && (raw == nil || bytes.Equal(raw, []byte(`""`)) || bytes.Equal(raw, []byte("null"))) {
			return command{}, fmt.Errorf("%s is required", field)
		}
	}
	for field := range given {
		if !known[field] {
			return command{}, fmt.Errorf("unknown field %q: want %s", field, strings.ReplaceAll(takes, "!", ""))
		}
	}
	var c command
	if err := json.Unmarshal(body, &c); err != nil {
		return command{}, err
	}
	return c, nil
}

func reply(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, fleet.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrBusy):
		status = http.StatusConflict
	case errors.Is(err, fleet.ErrUnauthorized):
		status = http.StatusUnauthorized
	case err != nil:
		status = http.StatusBadRequest
	}
	if err != nil {
		result = map[string]string{"error": err.Error()}
	}
	if result == nil {
		result = struct{}{}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(quote(result), '\n')) // the asker may have gone
}

// each does something to the runners named by id or name. The first that
// cannot be done ends it; those before it stay done.
func (s *Sim) each(c command, scope fleet.Scope, do func(fleet.Scope, int64) error) (any, error) {
	ids, err := s.ids(c, scope)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: ids or names is required", errCommand)
	}
	for _, id := range ids {
		if err := do(scope, id); err != nil {
			return nil, err
		}
	}
	return map[string]any{"ids": ids}, nil
}

func (s *Sim) ids(c command, scope fleet.Scope) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return nil, err
	}
	ids := append([]int64{}, c.IDs...)
	for _, name := range c.Names {
		r := st.names[name]
		if r == nil {
			return nil, fmt.Errorf("runner %s of %s: %w", name, scope, fleet.ErrNotFound)
		}
		ids = append(ids, r.id)
	}
	return ids, nil
}

// commandCreate makes one runner, or count of them, called NAME-1 and so on.
func (s *Sim) commandCreate(c command, scope fleet.Scope) (any, error) {
	n := max(c.Count, 1)
	ids, err := s.CreateMany(scope, n, func(i int) RunnerSpec {
		spec := RunnerSpec{Name: c.Name, OS: c.OS, Labels: c.Labels, Group: c.Group, Ephemeral: c.Ephemeral, Online: c.Online, Busy: c.Busy}
		if c.Count > 0 {
			spec.Name = fmt.Sprintf("%s-%d", c.Name, i+1)
		}
		return spec
	})
	return map[string]any{"ids": ids}, err
}

func (s *Sim) commandRegister(c command, _ fleet.Scope) (any, error) {
	scope, id, err := s.RegisterRunner(c.Token, RunnerSpec{Name: c.Name, OS: c.OS, Labels: c.Labels, Group: c.Group, Ephemeral: c.Ephemeral})
	return map[string]any{"scope": scope.String(), "id": id}, err
}

// commandHide hides the runners named, or count of them chosen at random.
func (s *Sim) commandHide(c command, scope fleet.Scope) (any, error) {
	ids, err := s.ids(c, scope)
	switch {
	case err != nil:
		return nil, err
	case (len(ids) > 0) == (c.Count > 0):
		return nil, fmt.Errorf("%w: hide: want either ids and names, or count", errCommand)
	case c.Count > 0:
		ids, err = s.HideSome(scope, c.Listings, c.Count)
	default:
		err = s.Hide(scope, c.Listings, ids...)
	}
	return map[string]any{"ids": ids}, err
}

func (s *Sim) commandShowOffline(c command, scope fleet.Scope) (any, error) {
	ids, err := s.ids(c, scope)
	if err != nil {
		return nil, err
	}
	return nil, s.ShowOffline(scope, c.Listings, ids...)
}

func (s *Sim) commandGrant(c command, scope fleet.Scope) (any, error) {
	switch c.Access {
	case AccessFull, AccessForbidden, AccessInvisible:
		s.Grant(c.Token, scope, c.Access)
		return nil, nil
	}
	return nil, fmt.Errorf("%w: access %q: want full, forbidden or invisible", errCommand, c.Access)
}

func (s *Sim) commandRename(c command, scope fleet.Scope) (any, error) {
	to, err := fleet.ParseScope(c.To)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCommand, err)
	}
	return nil, s.Rename(scope, to)
}
