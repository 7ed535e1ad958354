package githubsim

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// object is a JSON object whose members keep their order, as GitHub's do. It is
// nil for what is no object.
func object(text []byte) []member {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	all := []member{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil
		}
		all = append(all, member{name.(string), value}) // what stands before a value is its name
	}
	return all
}

func joinObject(members []member) []byte {
	b := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, quote(m.name)...), ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// spoilRows changes what an answer says of runners; one that says nothing of
// them is left alone.
func (f strike) spoilRows(q query, a *answer) {
	members := object(a.body)
	if !slices.Contains(rowKinds, f.Kind) || a.status != 200 || members == nil {
		return
	}
	if q.op == opGet {
		a.body = joinObject(f.spoilField(members))
		return
	}
	if f.Field == "total_count" || f.Field == "runners" {
		a.body = joinObject(f.spoilField(members))
		return
	}
	for i, m := range members {
		switch m.name {
		case "total_count":
			if total, err := strconv.Atoi(string(m.value)); err == nil && f.Kind == FaultTotal {
				members[i].value = strconv.AppendInt(nil, int64(total+f.by()), 10)
			}
		case "runners":
			var rows []json.RawMessage
			if json.Unmarshal(m.value, &rows) != nil {
				return
			}
			members[i].value = joinRows(f.spoilList(rows))
		}
	}
	a.body = joinObject(members)
}

func (f strike) by() int {
	if f.By == 0 {
		return 1
	}
	return f.By
}

func joinRows(rows []json.RawMessage) []byte {
	texts := make([][]byte, len(rows))
	for i, row := range rows {
		texts[i] = row
	}
	return append(append([]byte{'['}, bytes.Join(texts, []byte{','})...), ']')
}

func (f strike) spoilList(rows []json.RawMessage) []json.RawMessage {
	if len(rows) == 0 {
		return rows
	}
	switch f.Kind {
	case FaultRowsTwice:
		for _, i := range f.pick(len(rows), 1) {
			rows[(i+1)%len(rows)] = rows[i]
		}
		if len(rows) == 1 {
			rows = append(rows, rows[0])
		}
	case FaultRowsLost:
		lost := f.pick(len(rows), 1)
		for i := len(lost) - 1; i >= 0; i-- {
			rows = slices.Delete(rows, lost[i], lost[i]+1)
		}
	case FaultRowsNull:
		for _, i := range f.pick(len(rows), 1) {
			rows[i] = json.RawMessage("null")
		}
	case FaultFieldMissing, FaultFieldNull, FaultFieldWrong, FaultUnlabelled:
		for _, i := range f.pick(len(rows), len(rows)) {
			if members := object(rows[i]); members != nil {
				rows[i] = joinObject(f.spoilField(members))
			}
		}
	}
	return rows
}

// pick is which rows are concerned, ascending: Rows of n, or so many where that
// is zero.
func (f strike) pick(n, unset int) []int {
	k := f.Rows
	if k == 0 {
		k = unset
	}
	picked := f.random.Perm(n)[:min(k, n)]
	slices.Sort(picked)
	return picked
}

// unlabel empties the labels of a runner that is offline.
func unlabel(members []member) []member {
	lost := slices.ContainsFunc(members, func(m member) bool { return m.name == "status" && string(m.value) == `"offline"` })
	for i, m := range members {
		if lost && m.name == "labels" {
			members[i].value = json.RawMessage("[]")
		}
	}
	return members
}

func (f strike) spoilField(members []member) []member {
	if f.Kind == FaultUnlabelled {
		return unlabel(members)
	}
	i := slices.IndexFunc(members, func(m member) bool { return m.name == f.Field })
	if i < 0 {
		return members
	}
	switch f.Kind {
	case FaultFieldMissing:
		return slices.Delete(members, i, i+1)
	case FaultFieldNull:
		members[i].value = json.RawMessage("null")
	case FaultFieldWrong:
		text := string(members[i].value)
		switch {
		case strings.HasPrefix(text, `"`):
			members[i].value = json.RawMessage("7")
		case strings.HasPrefix(text, "["), strings.HasPrefix(text, "{"):
			members[i].value = json.RawMessage(`"none"`)
		default:
			members[i].value = quote(text)
		}
	}
	return members
}
