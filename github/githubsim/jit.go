package githubsim

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/muster-fleet/muster/fleet"
)

// unknownOS is what a runner of a JIT configuration has before it connects.
const unknownOS = "unknown"

// jitConfig answers the request for a just-in-time configuration, which
// registers the runner at once, before anybody has run it. It is ephemeral, and
// all its labels are read-only and have no number.
func (s *Sim) jitConfig(st *scopeState, body []byte, q query, e *Event) *answer {
	var in struct {
		Name   string   `json:"name"`
		Group  int64    `json:"runner_group_id"`
		Labels []string `json:"labels"`
		Folder string   `json:"work_folder"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return s.unprocessable("Invalid request. The body is not what is wanted.", q)
	}
	switch {
	case in.Name == "":
		return s.unprocessable(`Invalid request. "name" wasn't supplied.`, q)
	case in.Group == 0:
		return s.unprocessable(`Invalid request. "runner_group_id" wasn't supplied.`, q)
	case len(in.Labels) < 1 || len(in.Labels) > maxLabels:
		return s.unprocessable(fmt.Sprintf(`Invalid request. "labels" has %d items: 1 to %d are permitted.`, len(in.Labels), maxLabels), q)
	case slices.Contains(in.Labels, ""):
		return s.unprocessable("Invalid request. A label is empty.", q)
	case st.groups[in.Group] == nil:
		return s.notFound(q)
	case st.names[in.Name] != nil:
		return s.jsonError(http.StatusConflict, fmt.Sprintf("Already exists - A runner with the name %s already exists.", in.Name), q)
	}
	var raw [32]byte
	for i := range raw {
		raw[i] = byte(s.random.UintN(256))
	}
	config := base64.StdEncoding.EncodeToString(quote(map[string]string{
		".runner": base64.StdEncoding.EncodeToString(quote(map[string]any{"agentName": in.Name, "ephemeral": true, "gitHubUrl": st.name, "workFolder": cmp.Or(in.Folder, "_work")})),
		".credentials": base64.StdEncoding.EncodeToString(quote(map[string]any{
			"scheme": "OAuth", "data": map[string]string{"clientId": hex.EncodeToString(raw[:])},
		})),
	}))
	var labels []label
	for _, name := range in.Labels {
		labels = append(labels, label{0, name, "read-only"})
	}
	r := s.add(st, RunnerSpec{Name: in.Name, OS: unknownOS, Group: in.Group, Ephemeral: true}, labels, fingerprint(config))
	st.sort(1)
	e.Acted, e.Token, e.RunnerID, e.RunnerName = true, fingerprint(config), r.id, r.name
	b := append([]byte(`{"runner":`), r.appendJSON(nil, fleet.StatusOffline, r.job != 0)...)
	return &answer{status: http.StatusCreated, body: fmt.Appendf(b, `,"encoded_jit_config":%s}`, quote(config))}
}
