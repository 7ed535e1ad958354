package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

type wireRunnerGroup struct {
	ID         int64                 `json:"id"`
	Name       string                `json:"name"`
	Visibility fleet.GroupVisibility `json:"visibility"`
	Public     *bool                 `json:"allows_public_repositories"`
}

// runnerGroup is a group without what is selected.
type runnerGroup struct {
	id int64
	fleet.RunnerGroup
}

// group converts, or says what is wrong.
func (w *wireRunnerGroup) group() (runnerGroup, error) {
	switch {
	case w.ID <= 0:
		return runnerGroup{}, errors.New("a runner group has no id")
	case w.Public == nil:
		return runnerGroup{}, fmt.Errorf("runner group %d does not say whether it takes public repositories", w.ID)
	}
	switch w.Visibility {
	case fleet.GroupAll, fleet.GroupPrivate, fleet.GroupSelected:
	default:
		return runnerGroup{}, fmt.Errorf("runner group %d has the visibility %q, which is not known", w.ID, w.Visibility)
	}
	return runnerGroup{w.ID, fleet.RunnerGroup{
		ID: strconv.FormatInt(w.ID, 10), Name: fleet.CleanText(w.Name, maxRunnerText), Visibility: w.Visibility, Public: *w.Public,
	}}, nil
}

// wireGroupMember is a repository or an organisation.
type wireGroupMember struct {
	ID       int64  `json:"id"`
	FullName string `json:"full_name"`
	Login    string `json:"login"`
}

type groupMember struct {
	id   int64
	name string // lower case
}

// member converts, or says what is wrong.
func (w *wireGroupMember) member(of fleet.ScopeKind) (groupMember, error) {
	name, text := w.Login, "org/"+w.Login
	if of == fleet.ScopeOrg {
		name, text = w.FullName, "repo/"+w.FullName
	}
	if w.ID <= 0 {
		return groupMember{}, fmt.Errorf("%q, which is selected, has no id", name)
	}
	if _, err := fleet.ParseScope(text); err != nil {
		return groupMember{}, err
	}
	return groupMember{w.ID, strings.ToLower(name)}, nil
}

// RunnerGroups lists the runner groups of an organisation or enterprise, by id,
// those that an organisation has of its enterprise included: all of them or, with
// an error, none. A group that cannot be read, or one of whose members cannot,
// costs itself alone: the others come with the error, which is Unread. A repository has none, which takes no request. A group that is
// deleted meanwhile is left out. Charged is how many requests it took of the
// hour's: a list that is as it was takes none.
//
// GitHub may restrict a group to workflows as well. Nothing is said of that.
func (c *Client) RunnerGroups(ctx context.Context, scope fleet.Scope) (groups []fleet.RunnerGroup, charged int, err error) {
	if scope.Kind == fleet.ScopeRepo {
		return nil, 0, nil
	}
	listed, charged, unread := whole[wireRunnerGroup, runnerGroup]{
		op: OpRunnerGroups, scope: scope, path: "actions/runner-groups", of: "runner_groups",
		read: (*wireRunnerGroup).group,
		id:   func(g runnerGroup) int64 { return g.id },
		kept: &c.groups,
	}.list(ctx, c)
	if unread != nil && !Unread(unread) {
		return nil, charged, unread
	}
	for _, g := range listed {
		if g.Visibility == fleet.GroupSelected {
			selected, n, err := c.groupMembers(ctx, scope, g.id)
			charged += n
			if errors.Is(err, fleet.ErrNotFound) {
				continue // the list has just been seen, so it is the group that is gone
			}
			if err != nil {
				err = fmt.Errorf("runner group %s: %w", g.ID, err)
			}
			if Unread(err) {
				unread = cmp.Or(unread, err)
				continue
			}
			if err != nil {
				return nil, charged, err
			}
			g.Selected = selected
		}
		groups = append(groups, g.RunnerGroup)
	}
	return groups, charged, unread
}

// groupMembers lists what is selected for a group.
func (c *Client) groupMembers(ctx context.Context, scope fleet.Scope, id int64) (names []string, charged int, err error) {
	of := "repositories"
	if scope.Kind == fleet.ScopeEnterprise {
		of = "organizations"
	}
	members, charged, err := whole[wireGroupMember, groupMember]{
		op: OpGroupMembers, scope: scope, path: fmt.Sprintf("actions/runner-groups/%d/%s", id, of), of: of,
		read: func(w *wireGroupMember) (groupMember, error) { return w.member(scope.Kind) },
		id:   func(m groupMember) int64 { return m.id },
		kept: &c.members,
	}.list(ctx, c)
	for _, m := range members {
		names = append(names, m.name)
	}
	slices.Sort(names)
	return names, charged, err
}
