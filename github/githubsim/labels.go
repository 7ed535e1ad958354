package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxLabels is how many labels a request may name.
const maxLabels = 100

// runnerLabels answers the routes of one runner's labels: all of them say what
// the labels are now. The labels that a runner has by itself stay.
func (s *Sim) runnerLabels(st *scopeState, r *runner, body []byte, q query, e *Event) *answer {
	labels := slices.Clone(r.labels)
	custom := func(l label) bool { return l.Type == "custom" }
	switch q.op {
	case opRemoveLabel:
		i := slices.IndexFunc(labels, func(l label) bool { return strings.EqualFold(l.Name, q.label) })
		switch {
		case i < 0:
			return s.notFound(q)
		case !custom(labels[i]):
			return s.unprocessable("Read-only labels cannot be removed.", q)
		}
		labels = slices.Delete(labels, i, i+1)
	case opClearLabels:
		labels = slices.DeleteFunc(labels, custom)
	case opAddLabels, opSetLabels:
		var in struct{ Labels []string }
		if json.Unmarshal(body, &in) != nil || in.Labels == nil || len(in.Labels) > maxLabels || slices.Contains(in.Labels, "") || q.op == opAddLabels && len(in.Labels) == 0 {
			return s.unprocessable(fmt.Sprintf(`Invalid request. "labels" has to have up to %d names.`, maxLabels), q)
		}
		if q.op == opSetLabels {
			labels = slices.DeleteFunc(labels, custom)
		}
		labels = s.addLabels(labels, in.Labels)
	}
	if q.op != opLabels {
		e.Acted, r.labels = true, labels
		s.render(r)
		st.touch(r)
	}
	return &answer{status: http.StatusOK, body: fmt.Appendf(nil, `{"total_count":%d,"labels":%s}`, len(labels), quote(labels))}
}

// addLabels adds custom labels, where they are not there in other letters.
func (s *Sim) addLabels(labels []label, names []string) []label {
	for _, name := range names {
		if !slices.ContainsFunc(labels, func(l label) bool { return strings.EqualFold(l.Name, name) }) {
			labels = append(labels, label{s.labelID(name), name, "custom"})
		}
	}
	return labels
}
